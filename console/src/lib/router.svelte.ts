/* Paths of the console. The server answers each of them with the same page; see `crates/server/src/console`. */

class Router {
  path = $state(window.location.pathname);
  search = $state(window.location.search);

  /** The path's segments, decoded. */
  get segments(): string[] {
    return this.path.split('/').filter(Boolean).map(decode);
  }

  get query(): URLSearchParams {
    return new URLSearchParams(this.search);
  }

  go(to: string, replace = false): void {
    const moved = new URL(to, window.location.origin).pathname !== this.path;
    history[replace ? 'replaceState' : 'pushState'](null, '', to);
    this.read();
    if (moved) window.scrollTo(0, 0);
  }

  /** Changes parts of the query string and keeps the rest. */
  set(values: Record<string, string>): void {
    const next = this.query;
    for (const [key, value] of Object.entries(values)) {
      if (value) next.set(key, value);
      else next.delete(key);
    }
    const text = next.toString();
    this.go(this.path + (text ? `?${text}` : ''), true);
  }

  read(): void {
    this.path = window.location.pathname;
    this.search = window.location.search;
  }
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

export const router = new Router();

window.addEventListener('popstate', () => router.read());

// Plain links stay plain links: they open in tabs and can be copied. A click on one that stays here does not load the page again.
document.addEventListener('click', (e) => {
  if (e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
  const link = e.target instanceof Element ? e.target.closest('a') : null;
  if (!link || link.target || link.hasAttribute('download') || link.origin !== window.location.origin) return;
  if (link.pathname.startsWith('/api/') || link.hash) return;
  e.preventDefault();
  router.go(link.pathname + link.search);
});
