import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, open, rm, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import type { TestContext } from 'node:test'

/** A file system of its own that can be filled to the last byte. */
export interface SmallDisk {
  /** A folder on it. */
  readonly dir: string
  /** Leaves so many bytes, rounded up to whole pages. */
  fill(leave?: number): Promise<void>
  /** Takes back what `fill` did. */
  makeRoom(): Promise<void>
}

/** Why there can be no such disk here; with CI=true and root that is a failure. */
export function noDisks(): string | false {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'only root can mount a small disk'
  try {
    execFileSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], { stdio: 'ignore' })
    return false
  } catch (cause) {
    if (process.env['CI'] === 'true') throw new Error('a small disk cannot be mounted', { cause })
    return 'a small disk cannot be mounted here'
  }
}

/** Of so many MiB, until the test ends. */
export async function mountSmallDisk(t: TestContext, mib = 16): Promise<SmallDisk> {
  const mount = await mkdtemp(join(tmpdir(), 'glimpse-disk-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${mib}m`, 'glimpse-test', mount])
  t.after(() => unmount(mount))
  const dir = join(mount, 'data')
  await mkdir(dir)
  const ballast = join(mount, 'ballast')
  return {
    dir,
    fill: async (leave = 0) => {
      const file = await open(ballast, 'w')
      const block = Buffer.alloc(65_536, 'x')
      try {
        for (let length = block.length; length >= 4096; )
          await file.write(block, 0, length).then(
            ({ bytesWritten }) => bytesWritten,
            (error: NodeJS.ErrnoException) => {
              if (error.code !== 'ENOSPC') throw error
              length /= 2
            },
          )
        const { size } = await file.stat()
        await truncate(ballast, Math.max(0, size - Math.ceil(leave / 4096) * 4096))
      } finally {
        await file.close()
      }
    },
    makeRoom: () => rm(ballast, { force: true }),
  }
}

/** A disk whose writers can be made to wait. */
export interface FreezableDisk {
  readonly dir: string
  /** Whoever writes waits, until `thaw`; reading goes on. */
  freeze(): Promise<void>
  /** More than once is no error. */
  thaw(): Promise<void>
}

export function noFreezing(): string | false {
  const reason = noDisks()
  if (reason !== false) return reason
  return existsSync('/dev/loop-control') ? false : 'there are no loop devices'
}

export async function mountFreezableDisk(t: TestContext, mib = 256): Promise<FreezableDisk> {
  const home = await mkdtemp(join(tmpdir(), 'glimpse-disk-'))
  const [image, mount] = [join(home, 'disk'), join(home, 'mount')]
  await mkdir(mount)
  execFileSync('truncate', ['-s', `${mib}M`, image])
  execFileSync('mkfs.ext4', ['-q', image])
  execFileSync('mount', ['-o', 'loop', image, mount])
  let freezer: ChildProcess | undefined
  const thaw = async (): Promise<void> => {
    const ended = freezer && once(freezer, 'exit')
    freezer?.stdin?.end()
    freezer = undefined
    await ended
  }
  t.after(async () => {
    await thaw()
    unmount(mount)
    await rm(home, { recursive: true })
  })
  const dir = join(mount, 'data')
  await mkdir(dir)
  return {
    dir,
    freeze: async () => {
      // Its input ends when this process does, however that comes: nobody can end those who wait for a frozen disk.
      const script = 'fsfreeze -f "$0" && echo frozen && read _; fsfreeze -u "$0"'
      freezer = spawn('sh', ['-c', script, mount], { stdio: ['pipe', 'pipe', 'inherit'], detached: true })
      await once(freezer.stdout as Readable, 'data')
    },
    thaw,
  }
}

function unmount(mount: string): void {
  // Whoever still has a file open keeps the disk, and nobody finds it any more.
  execFileSync('umount', ['-l', mount])
}
