import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// Where `npm run dev` sends calls: a server that runs already.
const server = process.env.TIDEMILL_URL ?? 'http://127.0.0.1:8080';

export default defineConfig({
  plugins: [svelte()],
  build: {
    // Committed and embedded by the server's crate, so that building the program needs no Node.
    outDir: '../crates/server/console-dist',
    emptyOutDir: true,
    target: 'es2022',
    // The server's content policy allows no inline data but images, and small files are served fast enough.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  server: { proxy: { '/api': { target: server, changeOrigin: false } } },
});
