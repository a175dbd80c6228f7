// A gallery of three real homes, one of which is dark, as a visitor of the two others sees it. Run by homes.py.
import assert from 'node:assert/strict'
import { promises as fs } from 'node:fs'
import http from 'node:http'
import { createRequire } from 'node:module'
import path from 'node:path'
import { after, before, test } from 'node:test'

const cache = process.env.GALLERY_CACHE
const { chromium } = createRequire(path.join(cache, 'npm/package.json'))('playwright-core')
const { sites, early, late, lost, telephone } = JSON.parse(await fs.readFile(process.env.GALLERY_HOMES, 'utf8'))

let browser
before(async () => (browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage'] })))
after(() => browser?.close())

// Node knows no names below localhost.
const ask = (site, where) =>
  new Promise((done, failed) => {
    const url = new URL(where, site)
    http.get({ host: '127.0.0.1', port: url.port, path: url.pathname, headers: { Host: url.host } }, async (answer) => {
      let body = ''
      for await (const piece of answer) body += piece.toString('latin1')
      done({ status: answer.statusCode, etag: answer.headers.etag, body })
    }).on('error', failed)
  })
async function until(what, condition, seconds = 120) {
  for (const end = Date.now() + 1000 * seconds; Date.now() < end; await new Promise((r) => setTimeout(r, 200))) if (await condition()) return
  assert.fail(`not within ${seconds} s: ${what}`)
}
// A page whose scripts' errors and missing files fail the test.
async function open(site, where = '', options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options })
  const page = await context.newPage()
  page.complaints = []
  page.on('pageerror', (e) => page.complaints.push(String(e)))
  page.on('console', (m) => m.type() === 'error' && page.complaints.push(m.text()))
  await page.addInitScript(() => {
    window.shift = 0
    new PerformanceObserver((list) => list.getEntries().forEach((e) => (window.shift += e.value))).observe({ type: 'layout-shift', buffered: true })
  })
  page.end = async () => {
    assert.deepEqual(page.complaints, [])
    await context.close()
  }
  await page.goto(site + where, { waitUntil: 'load' })
  return page
}
// Pictures below the window are loaded later.
const loaded = (page, selector) =>
  until('pictures in the window are loaded', () =>
    page.$$eval(selector, (all) => all.every((i) => i.getBoundingClientRect().top > innerHeight || (i.complete && i.naturalWidth > 0))))

test('with one home dark both others show the same pages, with the same ETags', async () => {
  for (const where of ['', 'index.fr.html', 'a/', 'a/holidays/', `p/${early[0]}/`, `t/${early[1]}/640.webp`, 'c/root.json']) {
    const [one, other] = await Promise.all(sites.map((s) => ask(s, where)))
    assert.equal(one.status, 200, where)
    assert.ok(one.etag)
    assert.equal(one.etag, other.etag, where)
    assert.equal(one.body, other.body, where)
  }
})

test('with one home dark: from the start to a photo, with scripts and without, and nothing is missing', async () => {
  for (const site of sites) {
    const page = await open(site)
    await loaded(page, '.grid img')
    assert.equal(await page.locator('.grid a').count(), early.length)
    if (site === sites[0]) await page.screenshot({ path: path.join(cache, 'screenshots/one-home-dark.png') })
    await page.click('.grid a >> nth=2')
    await page.waitForSelector('.pswp--open .pswp__img:not(.pswp__img--placeholder)')
    await page.keyboard.press('Escape')
    await page.waitForSelector('.pswp', { state: 'detached' })
    await page.end()
    const plain = await open(site, '', { javaScriptEnabled: false })
    await plain.click('.grid a >> nth=1')
    await plain.waitForURL('**/p/**')
    await loaded(plain, 'figure img')
    await plain.end()
  }
})

test('photos that come while a home is dark are shown small first, and grow in the page that somebody looks at', async () => {
  await Promise.all(late.map(async (p) => assert.equal((await fetch(p.put, { method: 'PUT', body: await fs.readFile(p.file) })).status, 200)))
  const { id } = late[late.length - 1]
  await until('its page is there', async () => (await ask(sites[1], `p/${id}/`)).status === 200)
  const page = await open(sites[1], `p/${id}/`)
  const waited = await page.locator('figure img[data-wait]').count()
  console.log(`    ${waited ? 'its larger sizes came while the page was open' : 'all sizes were there already'}`)
  await page.waitForFunction(() => !document.querySelector('figure img[data-wait]'), null, { timeout: 120_000 })
  assert.match(await page.$eval('figure picture source', (s) => s.srcset), /\/(1280|2048)\.webp/)
  await loaded(page, 'figure img')
  assert.equal(await page.evaluate(() => window.shift), 0)
  await page.end()
  for (const p of late) await until('all of them are there', async () => (await ask(sites[0], `t/${p.id}/640.jpg`)).status === 200)
})

test('a HEIC of a telephone is seen in the grid and by itself, upright, and can be had as it was', async () => {
  const original = await fs.readFile(telephone.file)
  assert.equal((await fetch(telephone.put, { method: 'PUT', body: original })).status, 200)
  await until('its page is there', async () => (await ask(sites[0], `p/${telephone.id}/`)).status === 200)
  await until('its album lists it', async () => (await ask(sites[0], 'a/telephone/')).body.includes(telephone.id))
  const page = await open(sites[0], 'a/telephone/')
  assert.equal(await page.locator('.grid a').count(), 1)
  await loaded(page, '.grid img')
  const seen = await page.$eval('.grid img', (i) => ({ wide: i.naturalWidth, high: i.naturalHeight }))
  assert.ok(seen.wide > 0 && seen.high > seen.wide, `upright: ${JSON.stringify(seen)}`)
  await page.screenshot({ path: path.join(cache, 'screenshots/heic.png') })
  await page.click('.grid a')
  await page.waitForSelector('.pswp--open .pswp__img:not(.pswp__img--placeholder)')
  await until('it is shown large', () => page.$eval('.pswp--open .pswp__img:not(.pswp__img--placeholder)', (i) => i.complete && i.naturalHeight > i.naturalWidth && i.naturalWidth > 0))
  await page.end()
  const own = await ask(sites[0], `p/${telephone.id}/`)
  const link = /href="([^"]*\/o\/[^"]*)"/.exec(own.body)[1]
  const had = await ask(sites[0], new URL(link, `${sites[0]}p/${telephone.id}/`).pathname)
  assert.equal(had.status, 200)
  assert.ok(Buffer.from(had.body, 'latin1').equals(original), 'bit by bit')
})

test('small pictures that are lost come back because somebody looks', async () => {
  for (const f of lost.files) {
    assert.equal((await fetch(f.remove, { method: 'DELETE' })).status, 204)
    assert.equal((await fetch(f.get)).status, 404)
  }
  const start = Date.now()
  await (await open(sites[0], `p/${lost.id}/`)).context().close()
  // Whoever asks again makes the wish again.
  for (const f of lost.files) await until(`${f.name} is back`, async () => (await ask(sites[0], `t/${lost.id}/${f.name}`)) && (await fetch(f.get)).status === 200)
  console.log(`    after ${Date.now() - start} ms`)
  for (const f of lost.files) for (const site of sites) await until('every home has it', async () => (await ask(site, `t/${lost.id}/${f.name}`)).status === 200)
})
