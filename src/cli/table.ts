/** Text in a grid, as the clients of OpenStack draw it; columns of `right` are aligned to the right, others centred. */
export function grid(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  right: readonly string[] = [],
): string {
  const widths = head.map((name, column) => Math.max(name.length, ...rows.map((row) => row[column]?.length ?? 0)))
  const rule = `+${widths.map((width) => '-'.repeat(width + 2)).join('+')}+`
  const line = (cells: readonly string[]) =>
    `|${cells.map((cell, column) => ` ${placed(cell, widths[column] ?? 0, right.includes(head[column] ?? ''))} `).join('|')}|`
  return [rule, line(head), rule, ...rows.map(line), rule].join('\n')
}

function placed(text: string, width: number, toRight: boolean): string {
  if (toRight) return text.padStart(width)
  const space = width - text.length
  // An odd blank goes to the right of a text of odd length, and to the left of others.
  const before = text.length % 2 === 1 ? Math.floor(space / 2) : Math.ceil(space / 2)
  return text.padStart(text.length + before).padEnd(width)
}
