/* What a program wrote, as text that a page can show: the same characters, without what only a terminal can follow. */

/** Colours, moves of the cursor and titles, as terminals are told of them. */
const TERMINAL = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])/g;
/** What would be invisible, or could make a line read as another than it is. */
const HIDDEN = /[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]/g;

/** The text of a log. A line that was written over and over, as progress is, shows as it stood last. */
export function plain(text: string): string {
  return text
    .replace(TERMINAL, '')
    .replace(/\r\n/g, '\n')
    .replace(/[^\n]*\r(?=[^\n])/g, '')
    .replace(/\r/g, '')
    .replace(HIDDEN, visible);
}

/** Its picture in Unicode: `␀` for zero. */
function visible(c: string): string {
  const code = c.charCodeAt(0);
  return code < 0x20 ? String.fromCharCode(0x2400 + code) : code === 0x7f ? '␡' : '�';
}
