/** What is asked of glance-manage, on a database each: it begins empty. */
export const COURSES: Readonly<Record<string, readonly string[]>> = {
  'a new database': [
    'db version',
    'db check',
    'db migrate',
    'db contract',
    'db sync',
    'db version',
    'db check',
    'db sync',
    'db expand',
    'db migrate',
    'db contract',
    'db_version',
    'db_check',
    'db_sync',
    'db_sync 1',
    'db sync --version 1',
    'db_expand',
    'db_migrate',
    'db_contract',
    'db upgrade',
    'db upgrade --version train_contract01',
    'db_upgrade heads',
    'db_upgrade 2024_1_contract01',
  ],
  'a database of Train': [
    'db upgrade --version train_contract01',
    'db version',
    'db check',
    'db contract',
    'db expand',
    'db expand',
    'db version',
    'db check',
    'db migrate',
    'db contract',
    'db check',
  ],
  'a database that is told its revision': [
    'db version_control',
    'db version',
    'db version_control --version train_contract01',
    'db version',
    'db_version_control zed_contract01',
    'db_version',
    'db_version_control',
  ],
  'a database of Zed': ['db_upgrade zed_contract01', 'db_upgrade 2023_1_expand01', 'db version', 'db sync', 'db check'],
}

export interface Said {
  readonly command: string
  readonly code: number
  readonly stdout: string
  /** The last line of stderr, but for its log. */
  readonly error: string
}

export const said = (command: string, code: number, stdout: string, stderr: string): Said => ({
  command,
  code,
  stdout: stdout.trimEnd(),
  error:
    stderr
      .split('\n')
      .filter((line) => line !== '' && !/ INFO [a-z.]+ /.test(line))
      .at(-1) ?? '',
})
