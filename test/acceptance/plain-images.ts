import { open, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { cache, output, script } from './kit.ts'

/** What the kit makes of its boot disk: the driver of qemu-img, and its options. */
const COPIES: readonly (readonly [file: string, driver: string, options?: string])[] = [
  ['boot.qcow2', 'qcow2'],
  ['boot-small.qcow2', 'qcow2', 'compat=0.10'],
  ['boot.vmdk', 'vmdk', 'subformat=streamOptimized'],
  ['boot-sparse.vmdk', 'vmdk', 'subformat=monolithicSparse'],
  ['boot.vhd', 'vpc', 'subformat=dynamic'],
  ['boot-fixed.vhd', 'vpc', 'subformat=fixed'],
  ['boot.vhdx', 'vhdx'],
  ['boot.vdi', 'vdi'],
]

const SECTOR = 2048
/** Of an ISO image: where its own structures begin. A boot record of a disk may stand before it. */
const SYSTEM_AREA = 16 * SECTOR
/** In bytes: what the kit calls tiny.bin is the head of its disk. */
const HEAD = 65_536

/**
 * The kit's images, each of one format only. Its boot disk is a disc and a disk at once, which image_conversion refuses,
 * upstream's as well: the disk loses the marks of a disc here, the disc its boot record, and the copies are made anew.
 */
export async function makePlainImages(place: { readonly name: string }): Promise<void> {
  const images = join(cache, 'images')
  await script(place, 'make-images.sh', [images])
  const hybrid = await readFile(join(images, 'boot.raw'))
  const marks = discMarks(hybrid)
  if (marks === 0) return

  const disk = Buffer.from(hybrid).fill(0, SYSTEM_AREA, SYSTEM_AREA + marks * SECTOR)
  const raw = join(images, 'plain.raw')
  await writeFile(raw, disk)
  for (const [file, driver, options] of COPIES) {
    const how = options === undefined ? [] : ['-o', options]
    await output('qemu-img', ['convert', '-f', 'raw', '-O', driver, ...how, raw, join(images, file)])
  }
  await writeFile(join(images, 'tiny.bin'), disk.subarray(0, HEAD))
  const disc = await open(join(images, 'boot.iso'), 'r+')
  await disc.write(Buffer.alloc(SYSTEM_AREA), 0, SYSTEM_AREA, 0)
  await disc.close()
  // The last thing to change: by it the next run knows that all is done.
  await rename(raw, join(images, 'boot.raw'))
}

/** How many volume descriptors follow one another. */
function discMarks(image: Buffer): number {
  let count = 0
  const mark = (n: number) => image.toString('latin1', SYSTEM_AREA + n * SECTOR + 1, SYSTEM_AREA + n * SECTOR + 6)
  while (mark(count) === 'CD001') count++
  return count
}
