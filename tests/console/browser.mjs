// Chromium with a fresh profile, and a watch over what a page does that it should not.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const ARGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--force-color-profile=srgb', '--hide-scrollbars',
];

/** A browser whose pages are watched for errors and for requests to other hosts than `url`. */
export async function open(url, options = {}) {
  const profile = mkdtempSync(join(tmpdir(), 'tidemill-chromium-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM_BIN ?? '/usr/bin/chromium',
    headless: true,
    args: ARGS,
    viewport: { width: 1280, height: 860 },
    acceptDownloads: true,
    baseURL: url,
    ...options,
  });
  const errors = [];
  const foreign = [];
  const refused = [];
  const asked = new Set();
  context.on('console', (message) => {
    // The browser itself logs each refused request; those are looked at one by one below.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) errors.push(message.text());
  });
  context.on('weberror', (e) => errors.push(String(e.error())));
  context.on('request', (request) => {
    const to = request.url();
    asked.add(to);
    if (!to.startsWith(`${url}/`) && !to.startsWith('data:') && !to.startsWith(`blob:${url}/`)) foreign.push(to);
  });
  context.on('response', (response) => {
    if (response.status() >= 400) refused.push(`${response.status()} ${response.request().method()} ${new URL(response.url()).pathname}`);
  });
  const close = async () => {
    await context.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  };
  return { context, page: context.pages()[0] ?? (await context.newPage()), errors, foreign, refused, asked, close };
}
