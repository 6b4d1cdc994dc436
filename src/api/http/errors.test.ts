import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { ServiceError } from '../../domain/errors.ts'
import { failureOf, preferredRendering, renderFailure } from './errors.ts'

describe('error rendering', () => {
  const failure = failureOf(new ServiceError('not-found', 'No image <x>'), undefined, undefined)

  it('is plain text for who states no preference', () => {
    assert.equal(renderFailure(failure, undefined).text, '404 Not Found\n\nNo image <x>\n\n   '.replace('<x>', ''))
  })

  it('escapes what a client said in HTML', () => {
    assert.match(renderFailure(failure, '*/*').text ?? '', /No image &lt;x&gt;<br \/><br \/>/)
  })

  it('has message, code and title as JSON', () => {
    assert.deepEqual(JSON.parse(renderFailure(failure, 'application/json').text ?? ''), {
      message: 'No image <x><br /><br />\n\n\n',
      code: '404 Not Found',
      title: 'Not Found',
    })
  })

  it('says nothing about an unexpected error', () => {
    const text = renderFailure(failureOf(new Error('password=secret'), undefined, undefined), undefined).text ?? ''
    assert.doesNotMatch(text, /secret/)
  })

  it('challenges who is not known', () => {
    const { headers } = failureOf(new ServiceError('unauthenticated', 'x'), undefined, 'Keystone uri="http://k"')
    assert.equal(headers?.['www-authenticate'], 'Keystone uri="http://k"')
  })

  for (const [accept, rendering] of [
    [undefined, 'text/plain'],
    ['', 'text/plain'],
    ['text/plain', 'text/plain'],
    ['application/xml', 'text/plain'],
    ['*/*', 'text/html'],
    ['text/html', 'text/html'],
    ['application/json', 'application/json'],
    ['application/json, text/html', 'text/html'],
    ['text/html;q=0.5, application/json', 'application/json'],
    ['application/json;q=0', 'text/plain'],
    ['application/*', 'application/json'],
    ['garbage', 'text/html'],
  ] as const) {
    it(`answers Accept ${JSON.stringify(accept)} with ${rendering}`, () =>
      assert.equal(preferredRendering(accept), rendering))
  }
})
