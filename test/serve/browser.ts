import { existsSync } from 'node:fs';

/** Where Chromium is found on Linux; FATHOM_CHROMIUM names another. */
const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

/** The browser for the page's tests, or why there is none. */
export function findBrowser(): { path: string } | { missing: string } {
  const named = process.env.FATHOM_CHROMIUM;
  const path = named ?? PLACES.find((place) => existsSync(place));
  if (path !== undefined && existsSync(path)) return { path };
  return {
    missing: `no Chromium at ${named ?? PLACES.join(', ')}; set FATHOM_CHROMIUM to test the chat page`,
  };
}
