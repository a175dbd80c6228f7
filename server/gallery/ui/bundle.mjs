// Bundles src/ into a folder: early.js, gallery.js, style.css, as they are served.
// usage: node bundle.mjs FOLDER-WITH-node_modules SOURCE OUT
import { createRequire } from 'node:module'
import path from 'node:path'

const [modules, source, out] = process.argv.slice(2).map((p) => path.resolve(p))
const { build } = createRequire(path.join(modules, 'package.json'))('esbuild')
const common = {
  bundle: true,
  minify: true,
  legalComments: 'none', // the about page has them
  nodePaths: [path.join(modules, 'node_modules')],
  target: 'es2021',
  logLevel: 'warning',
}
await build({ ...common, entryPoints: [path.join(source, 'early.js'), path.join(source, 'gallery.js')], outdir: out, format: 'iife' })
await build({ ...common, entryPoints: [path.join(source, 'style.css')], outdir: out })
