/** Why an upload is answered otherwise than by Glance on purpose; docs/formats.md tells users. */
export interface Difference {
  readonly why: string
  /** Names of samples; those that are answered as recorded may be among them. */
  readonly samples: RegExp
  /** It is not the status that differs. */
  readonly onlySize?: true
}

export const DIFFERENCES: readonly Difference[] = [
  { why: 'a fixed vhd is recognised by its footer', samples: /^(qemu-img: )?vhd fixed/ },
  { why: 'that footer makes other data ambiguous', samples: / \+ fixed vhd$/ },
  {
    why: 'whatever may be taken for several things must be safe as each of them',
    samples: /^(qed|qcow2|vmdk) \+ |\+ qcow2$|^vmdk descriptor file \+/,
  },
  {
    why: 'a parent is another file',
    samples: /^(qemu-img: vmdk backing file|vmdk parent|vhd differencing|vhdx parent)$/,
  },
  { why: 'a virtual size of 2^53 bytes or more', samples: /(virtual size|capacity) (2\^|\d{14})/ },
  { why: 'a header that is cut short', samples: / cut to \d+$/ },
  { why: 'a vhdx whose virtual size is lost', samples: /^vhdx (no |other region|metadata |size beyond|size within)/ },
  { why: 'the size of a vhdx has eight bytes, whatever the table says', samples: /^vhdx size of 4 bytes$/ },
  { why: 'a vmdk of two types', samples: /^vmdk (two createTypes|createType in a comment first)$/ },
  { why: 'a vmdk whose descriptor does not end', samples: /^vmdk descriptor (that does not end|of 2\^55 sectors)$/ },
  { why: 'a vmdk without a capacity', samples: /^vmdk capacity 0$/ },
  { why: 'a footer of another capacity than the header', samples: /^vmdk footer of another capacity$/ },
  { why: 'a vmdk descriptor of any kind is a file of its own', samples: /^vmdk descriptor file/ },
  { why: 'a disc that is also a disk may be declared raw', samples: /^iso \+ (gpt|mbr without partitions)$/ },
  { why: 'a vhd has its current size, not the first', samples: /^vhd resized$/, onlySize: true },
  {
    why: 'a vhdx whose tables say that they are longer than they can be is read as far as they go',
    samples: /^vhdx (2\^32 - 1 regions|65535 metadata items)$/,
    onlySize: true,
  },
]
