/** What one request brings of the data. */
export interface Piece {
  /** First byte that is not in the file yet. */
  at: number
  /** First byte that has not come yet. */
  got: number
  /** The byte behind the last; less than at first when another request takes over the rest. */
  to: number
  /** The byte behind the last that the request would bring if nobody stopped it. */
  reach: number
  /** Whether somebody is fetching it. */
  busy: boolean
}

/** How the data of a download is divided among the requests that fetch it at the same time. */
export interface Pieces {
  /** Bytes that have come, all pieces together. */
  received(): number
  /** What is not in the file yet. */
  missing(): readonly (readonly [from: number, to: number])[]
  /** A piece that nobody fetches, else the second half of the longest, else nothing; the caller has it then. */
  take(mayDivide: boolean): Piece | undefined
  /** A piece that nobody fetches any more. What another request would have brought anyhow, it shall bring. */
  giveBack(piece: Piece): void
}

/**
 * Of data whose `size` may be Infinity, while nobody knows it, the ranges `missing`. Halves of fewer bytes than
 * `worthDividing` are left with the request that will bring them.
 */
export function openPieces(
  size: number,
  missing: readonly (readonly [from: number, to: number])[],
  worthDividing: number,
): Pieces {
  let pieces = missing.map(([at, to]): Piece => ({ at, got: at, to, reach: to, busy: false }))

  const divide = (): Piece | undefined => {
    const [longest] = pieces.toSorted((a, b) => b.to - b.got - (a.to - a.got))
    if (longest === undefined || longest.to === Number.POSITIVE_INFINITY) return undefined
    const middle = Math.ceil((longest.got + longest.to) / 2)
    if (longest.to - middle < worthDividing) return undefined
    const half: Piece = { at: middle, got: middle, to: longest.to, reach: longest.to, busy: true }
    longest.to = middle
    pieces.push(half)
    return half
  }

  const joinTwo = (): boolean => {
    for (const piece of pieces.filter(({ at, to, busy }) => !busy && at < to)) {
      const before = pieces.find(({ to, busy, reach }) => to === piece.at && (!busy || reach >= piece.to))
      if (before === undefined || before.at === before.to) continue
      before.to = piece.to
      pieces = pieces.filter((one) => one !== piece)
      return true
    }
    return false
  }

  return {
    received: () =>
      size === Number.POSITIVE_INFINITY
        ? (pieces[0]?.got ?? 0)
        : size - pieces.reduce((sum, { got, to }) => sum + to - got, 0),
    missing: () => pieces.filter(({ at, to }) => at < to).map(({ at, to }) => [at, to]),
    take: (mayDivide) => {
      if (size !== Number.POSITIVE_INFINITY) pieces = pieces.filter(({ at, to, busy }) => busy || at < to)
      const idle = pieces.find(({ at, to, busy }) => !busy && at < to)
      if (idle === undefined) return mayDivide ? divide() : undefined
      idle.busy = true
      idle.reach = idle.to
      return idle
    },
    giveBack: (piece) => {
      piece.busy = false
      piece.got = piece.at
      while (joinTwo());
    },
  }
}
