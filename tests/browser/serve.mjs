// A plain static server on loopback for a folder, with the headers that galleries are served with. It knows nothing of languages.
import { createReadStream, promises as fs } from 'node:fs'
import http from 'node:http'
import path from 'node:path'

const types = {
  '.html': 'text/html; charset=utf-8', '.css': 'text/css; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.json': 'application/json',
  '.svg': 'image/svg+xml', '.webp': 'image/webp', '.jpg': 'image/jpeg',
}
const csp = "default-src 'none'; img-src 'self' data: blob:; script-src 'self'; style-src 'self'; connect-src 'self'"

// under: the path at which the folder is served, "" or "/deep/in/a/host".
export async function serve(folder, { under = '' } = {}) {
  const server = http.createServer(async (request, response) => {
    const url = new URL(request.url, 'http://x')
    const headers = { 'Content-Security-Policy': csp, 'X-Content-Type-Options': 'nosniff', 'Cache-Control': 'no-cache' }
    const answer = async (status, file) => {
      const size = (await fs.stat(file)).size
      response.writeHead(status, { ...headers, 'Content-Type': types[path.extname(file)] || 'application/octet-stream', 'Content-Length': size })
      createReadStream(file).pipe(response)
    }
    try {
      let name = decodeURIComponent(url.pathname)
      if (!name.startsWith(under + '/')) throw new Error('elsewhere')
      name = name.slice(under.length)
      if (name.endsWith('/')) name += 'index.html'
      const file = path.join(folder, path.normalize(name))
      if (!file.startsWith(folder) || !(await fs.stat(file)).isFile()) throw new Error('none')
      await answer(200, file)
    } catch {
      await answer(404, path.join(folder, '404.html')).catch(() => response.writeHead(404).end())
    }
  })
  await new Promise((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address()
  return { url: `http://127.0.0.1:${port}${under}/`, close: () => server.closeAllConnections() || server.close() }
}
