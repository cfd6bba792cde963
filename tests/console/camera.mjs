// Takes pictures of whole pages.

import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';

export const WIDE = { width: 1200, height: 800 };
export const PHONE = { width: 390, height: 844 };
/** A list of hundreds of rows says no more than its first ones. */
const HIGHEST = 1500;
/** Charts ask for their data after the page is there. */
const SETTLE_MS = 1200;

/** The folder that a variable names, made if it is not there. */
export function folder(name) {
  const path = process.env[name] && resolve(process.env[name]);
  if (path) mkdirSync(path, { recursive: true });
  return path;
}

/** What is done with a page to have pictures of it. */
export function camera(page) {
  async function look(path, scheme = 'light', size = WIDE) {
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme: scheme });
    if (new URL(page.url()).pathname !== path) await page.goto(path);
    await page.getByRole('heading', { level: 1 }).waitFor();
    await page.waitForTimeout(SETTLE_MS);
  }
  /** The whole page: the window is made as high as what it shows, or the bar at the side would end early. */
  async function keep(where, name, width = WIDE.width, highest = HIGHEST) {
    const height = await page.evaluate(() => document.documentElement.scrollHeight);
    await page.setViewportSize({ width, height: Math.min(height, highest) });
    await page.waitForTimeout(200);
    await page.screenshot({ path: join(where, `${name}.png`) });
  }
  /** A page in both colour schemes and as on a phone. `prepare` does what has to be done before it is worth a look. */
  async function all(where, name, path, prepare = async () => {}) {
    await page.goto(path);
    await prepare();
    const here = new URL(page.url()).pathname;
    await look(here);
    await keep(where, name);
    await look(here, 'dark');
    await keep(where, `${name}-dark`);
    await look(here, 'light', PHONE);
    await keep(where, `${name}-phone`, PHONE.width);
  }
  return { look, keep, all };
}
