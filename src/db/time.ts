/** As SQLAlchemy writes a time on SQLite: `YYYY-MM-DD HH:MM:SS.ffffff`, UTC. */
export const toText = (time: Date): string => {
  const iso = time.toISOString()
  return `${iso.slice(0, 10)} ${iso.slice(11, 23)}000`
}

/** Also reads times without a fraction; microseconds are cut off. */
export const fromText = (text: string): Date => new Date(`${text.slice(0, 10)}T${text.slice(11, 23)}Z`)
