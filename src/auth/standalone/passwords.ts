import { randomBytes, scrypt, timingSafeEqual } from 'node:crypto'
import { ServiceError } from '../../domain/errors.ts'

const COST = 15
const BLOCK_SIZE = 8
const PARALLELISM = 1
const KEY_LENGTH = 32
const LONGEST_PASSWORD = 4096

// scrypt runs in the thread pool that also serves the disks, and takes 32 MiB a time.
const AT_ONCE = 2
const WAITING = 64

export interface Passwords {
  /** What may be stored: `scrypt$log2(N)$r$p$salt$key`. Throws `invalid` when nobody should have such a password. */
  hash(password: string): Promise<string>
  /** Takes as long for an unknown user (`undefined`) as for a known one. */
  verify(password: string, stored: string | undefined): Promise<boolean>
}

/** `cost` is the binary logarithm of scrypt's N for new passwords; stored ones keep theirs. */
export function openPasswords(cost = COST): Passwords {
  const turn = turns(AT_ONCE, WAITING)
  /** A hash that no password has. */
  const nobody = print(cost, Buffer.alloc(16), Buffer.alloc(KEY_LENGTH))
  return {
    hash: async (password) => {
      if (password === '' || password.length > LONGEST_PASSWORD) {
        throw new ServiceError('invalid', `A password has 1 to ${LONGEST_PASSWORD} characters.`)
      }
      const salt = randomBytes(16)
      return print(cost, salt, await turn(() => derive(password, salt, KEY_LENGTH, cost, BLOCK_SIZE, PARALLELISM)))
    },
    verify: async (password, stored) => {
      const [, cost, blockSize, parallelism, salt = '', key = ''] = (stored ?? nobody).split('$')
      const wanted = Buffer.from(key, 'base64url')
      const given = await turn(() =>
        derive(
          password.slice(0, LONGEST_PASSWORD),
          Buffer.from(salt, 'base64url'),
          wanted.length,
          Number(cost),
          Number(blockSize),
          Number(parallelism),
        ),
      )
      return timingSafeEqual(given, wanted) && stored !== undefined && password.length <= LONGEST_PASSWORD
    },
  }
}

const print = (cost: number, salt: Buffer, key: Buffer): string =>
  ['scrypt', cost, BLOCK_SIZE, PARALLELISM, salt.toString('base64url'), key.toString('base64url')].join('$')

function derive(password: string, salt: Buffer, length: number, cost: number, r: number, p: number): Promise<Buffer> {
  const options = { N: 2 ** cost, r, p, maxmem: 256 * 2 ** cost * r }
  return new Promise((resolve, reject) =>
    scrypt(password, salt, length, options, (error, key) => (error ? reject(error) : resolve(key))),
  )
}

/** Lets `atOnce` bodies run at a time. Throws `unavailable` when more than `mayWait` would have to wait. */
function turns(atOnce: number, mayWait: number) {
  const waiting: (() => void)[] = []
  let running = 0
  return async <T>(body: () => Promise<T>): Promise<T> => {
    if (running < atOnce) running += 1
    else if (waiting.length < mayWait) await new Promise<void>((resolve) => waiting.push(resolve))
    else throw new ServiceError('unavailable', 'Too many logins at the same time, try again soon.', { transient: true })
    try {
      return await body()
    } finally {
      // Whoever waits longest takes the place over, so `running` stays as it is.
      const next = waiting.shift()
      if (next) next()
      else running -= 1
    }
  }
}
