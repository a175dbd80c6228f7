// The gallery's pages, driven as a person would.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { promises as fs } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { serve } from './serve.mjs'

const cache = process.env.GALLERY_CACHE
const require = createRequire(path.join(cache, 'npm/package.json'))
const { chromium } = require('playwright-core')
const axe = await fs.readFile(require.resolve('axe-core/axe.min.js'), 'utf8')
const shots = path.join(cache, 'screenshots')
const folder = (name) => path.join(cache, 'sites', name)

let browser, family, large, empty
before(async () => {
  browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage'] })
  ;[family, large, empty] = await Promise.all(['family', 'large', 'empty'].map((s) => serve(folder(s))))
})
after(async () => {
  await browser?.close()
  for (const s of [family, large, empty]) s?.close()
})

const photoPage = async () => {
  const ids = (await fs.readdir(path.join(folder('family'), 'p'))).sort()
  return `p/${ids[7]}/index.html`
}
// One page of every kind.
const kinds = async () => ({
  timeline: [family, 'index.html'], archive: [family, 'm/index.html'], month: [family, 'm/2024-07/index.html'], albums: [family, 'a/index.html'],
  album: [family, 'a/Holidays/index.html'], photos: [family, 'a/Garden/index.html'], photo: [family, await photoPage()], about: [family, 'about/index.html'],
  missing: [family, 'nothing/here'], empty: [empty, 'index.html'], part: [large, 'timeline/2/index.html'],
})

// A page whose complaints (errors of scripts, of the content security policy, of files that are not there) fail the test.
async function open(site, where, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options })
  const page = await context.newPage()
  page.complaints = []
  page.on('pageerror', (e) => page.complaints.push(String(e)))
  page.on('console', (m) => m.type() === 'error' && page.complaints.push(m.text()))
  await page.addInitScript(() => {
    window.shift = 0
    new PerformanceObserver((list) => list.getEntries().forEach((e) => (window.shift += e.value))).observe({ type: 'layout-shift', buffered: true })
    window.longTasks = []
    new PerformanceObserver((list) => list.getEntries().forEach((e) => window.longTasks.push(e.duration))).observe({ type: 'longtask', buffered: true })
  })
  page.end = async () => {
    const expected = where === 'nothing/here' ? page.complaints.filter((c) => !c.includes('404')) : page.complaints
    assert.deepEqual(expected, [])
    await context.close()
  }
  await page.goto(site.url + where, { waitUntil: 'load' })
  return page
}
const shot = (page, name, options) => page.screenshot({ path: path.join(shots, `${name}.png`), ...options })
const settled = (page) => page.waitForLoadState('networkidle')
const opened = async (page) => {
  await page.waitForSelector('.pswp--open .pswp__img:not(.pswp__img--placeholder)')
  await page.waitForTimeout(450)
}
const shownId = (page) => page.evaluate(() => /t\/([0-9a-f]{64})\//.exec(document.querySelector('.pswp__item[aria-hidden=false] .pswp__img:not(.pswp__img--placeholder)')?.src)?.[1])
const idsOf = (page) => page.$$eval('.grid a', (links) => links.map((a) => /p\/([0-9a-f]{64})\//.exec(a.href)[1]))

test('a click opens the photo over the page; arrows, Escape and the way back', async () => {
  const page = await open(family, 'm/2024-07/index.html')
  const ids = await idsOf(page)
  assert.equal(ids.length, 12)
  await page.click('.grid a >> nth=2')
  await opened(page)
  assert.equal(await shownId(page), ids[2])
  await shot(page, 'lightbox')
  const dialog = page.locator('.pswp')
  assert.equal(await dialog.getAttribute('role'), 'dialog')
  assert.equal(await dialog.getAttribute('aria-modal'), 'true')
  assert.ok(await page.$eval('main', (m) => m.inert))
  await page.keyboard.press('ArrowRight')
  await page.waitForTimeout(500)
  assert.equal(await shownId(page), ids[3])
  assert.match(await page.textContent('.pswp > [aria-live=polite]'), /^Photo 4 of 12\. Photo, \d+ July 2024, \d\d:\d\d$/)
  await page.keyboard.press('ArrowLeft')
  await page.keyboard.press('ArrowLeft')
  await page.waitForTimeout(600)
  assert.equal(await shownId(page), ids[1])
  await page.keyboard.press('Escape')
  await page.waitForSelector('.pswp', { state: 'detached' })
  assert.ok(!(await page.$eval('main', (m) => m.inert)))
  assert.equal(await page.evaluate(() => /p\/([0-9a-f]{64})/.exec(document.activeElement.href)?.[1]), ids[1], 'focus is on the photo that was shown last')
  // By keyboard alone, and closed by the browser's back button.
  await page.keyboard.press('Enter')
  await opened(page)
  await page.goBack()
  await page.waitForSelector('.pswp', { state: 'detached' })
  assert.match(page.url(), /m\/2024-07\/index\.html$/)
  await page.end()
})

test('buttons of the opened photo: next, details, close', async () => {
  const page = await open(family, 'm/2024-07/index.html')
  await page.click('.grid a >> nth=0')
  await opened(page)
  await page.click('.pswp__button--arrow--next')
  await page.waitForTimeout(500)
  assert.equal(await shownId(page), (await idsOf(page))[1])
  await page.click('.pswp__button--details')
  await page.waitForSelector('.panel dl')
  assert.equal(await page.getAttribute('.pswp__button--details', 'aria-expanded'), 'true')
  await page.click('.pswp__button--close')
  await page.waitForSelector('.pswp', { state: 'detached' })
  await page.end()
})

test('i shows what the camera wrote, for each photo; d downloads the original, bit by bit', async () => {
  const page = await open(family, 'm/2024-07/index.html')
  const ids = await idsOf(page)
  await page.click('.grid a >> nth=1')
  await opened(page)
  await page.keyboard.press('i')
  await page.waitForSelector('.panel dl')
  const facts = async () => Object.fromEntries(await page.$$eval('.panel dl div', (rows) => rows.map((r) => [...r.children].map((c) => c.textContent))))
  const first = await facts()
  const record = JSON.parse(await fs.readFile(path.join(folder('family'), `i/${ids[1]}.json`), 'utf8'))
  assert.match(first.Taken, /2024/)
  assert.ok(first.Camera.includes(record.model))
  assert.ok(first.Exposure.includes(`ISO ${record.iso}`))
  assert.equal(first.File, record.names[0].key.split('/').pop())
  await page.waitForTimeout(350)
  await shot(page, 'details')
  await page.keyboard.press('ArrowRight')
  await page.waitForFunction((old) => document.querySelector('.panel').dataset.id !== old, ids[1])
  await page.waitForTimeout(500)
  assert.notDeepEqual(await facts(), first)
  const [download] = await Promise.all([page.waitForEvent('download'), page.keyboard.press('d')])
  const content = await fs.readFile(await download.path())
  assert.equal(createHash('sha256').update(content).digest('hex'), ids[2], 'a photo is named by its content')
  await page.keyboard.press('i')
  await page.waitForSelector('.panel', { state: 'hidden' })
  await page.end()
})

test('plus and minus zoom; neighbours are loaded ahead', async () => {
  const page = await open(family, 'm/2024-07/index.html')
  const asked = []
  page.on('request', (r) => asked.push(r.url()))
  const ids = await idsOf(page)
  await page.click('.grid a >> nth=3')
  await opened(page)
  await settled(page)
  for (const i of [2, 4, 5]) assert.ok(asked.some((u) => new RegExp(`t/${ids[i]}/(1280|2048)\\.webp`).test(u)), `photo ${i} was loaded ahead`)
  const width = () => page.$eval('.pswp__item[aria-hidden=false] .pswp__img:not(.pswp__img--placeholder)', (e) => Math.round(e.getBoundingClientRect().width))
  const small = await width()
  await page.keyboard.press('+')
  await page.waitForTimeout(500)
  const big = await width()
  assert.ok(big > small)
  await page.keyboard.press('-')
  await page.waitForTimeout(500)
  assert.equal(await width(), small)
  await page.end()
})

test('a finger: tap opens, swipes go on and back, a swipe down closes', async () => {
  const page = await open(family, 'm/2024-07/index.html', { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true })
  const ids = await idsOf(page)
  await page.tap('.grid a >> nth=0')
  await opened(page)
  assert.equal(await shownId(page), ids[0])
  const touch = await page.context().newCDPSession(page)
  const swipe = async (x1, y1, x2, y2) => {
    await touch.send('Input.dispatchTouchEvent', { type: 'touchStart', touchPoints: [{ x: x1, y: y1 }] })
    for (let i = 1; i <= 8; ++i) {
      await touch.send('Input.dispatchTouchEvent', { type: 'touchMove', touchPoints: [{ x: x1 + ((x2 - x1) * i) / 8, y: y1 + ((y2 - y1) * i) / 8 }] })
      await page.waitForTimeout(12)
    }
    await touch.send('Input.dispatchTouchEvent', { type: 'touchEnd', touchPoints: [] })
    await page.waitForTimeout(700)
  }
  await swipe(330, 420, 60, 420)
  assert.equal(await shownId(page), ids[1])
  await swipe(60, 420, 330, 420)
  assert.equal(await shownId(page), ids[0])
  await page.tap('.pswp__button--details')
  await page.waitForSelector('.panel dl')
  await page.waitForTimeout(300)
  await shot(page, 'phone-details')
  await page.tap('.pswp__button--details')
  await swipe(195, 300, 195, 700)
  await page.waitForSelector('.pswp', { state: 'detached' })
  await page.end()
})

test('arrow keys walk the grid, one stop for Tab', async () => {
  const page = await open(family, 'm/2024-07/index.html')
  const at = () => page.evaluate(() => [...document.querySelectorAll('.grid a')].indexOf(document.activeElement))
  for (let i = 0; i < 12 && (await at()) < 0; ++i) await page.keyboard.press('Tab')
  assert.equal(await at(), 0)
  await page.keyboard.press('ArrowRight')
  await page.keyboard.press('ArrowRight')
  assert.equal(await at(), 2)
  const row = () => page.evaluate(() => document.activeElement.getBoundingClientRect().top + scrollY)
  const top = await row()
  await page.keyboard.press('ArrowDown')
  assert.ok((await row()) > top)
  const below = await at()
  await page.keyboard.press('ArrowUp')
  assert.equal(await row(), top)
  await page.keyboard.press('End')
  assert.equal(await at(), 11)
  await page.keyboard.press('Home')
  assert.equal(await at(), 0)
  await page.keyboard.press('ArrowLeft')
  assert.equal(await at(), 0)
  assert.ok(below > 2)
  await page.keyboard.press('Tab')
  assert.equal(await at(), -1, 'Tab leaves the grid')
  await page.keyboard.press('Shift+Tab')
  assert.equal(await at(), 0, 'and comes back to where it was')
  await page.end()
})

test('the skip link is the first stop and leads to the content', async () => {
  const page = await open(family, 'index.html')
  await page.keyboard.press('Tab')
  assert.equal(await page.evaluate(() => document.activeElement.className), 'skip')
  await page.keyboard.press('Enter')
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main')
  await page.end()
})

test('arrow keys turn the photo’s own pages, Escape leads to its month', async () => {
  const page = await open(family, 'm/2024-07/index.html')
  const ids = await idsOf(page)
  await page.goto(`${family.url}p/${ids[4]}/index.html`)
  const turn = async (key, pattern) => {
    await Promise.all([page.waitForURL(pattern), page.keyboard.press(key)])
    await page.waitForLoadState('load')
  }
  await turn('ArrowRight', `**/p/${ids[5]}/index.html`)
  await turn('ArrowLeft', `**/p/${ids[4]}/index.html`)
  await turn('Escape', '**/m/2024-07/index.html')
  await page.end()
})

test('without JavaScript: browse from the start to a photo, on to the next, and download it', async () => {
  const page = await open(family, 'index.html', { javaScriptEnabled: false })
  await shot(page, 'no-javascript-timeline')
  await page.click('h2 a >> nth=0')
  await page.waitForURL('**/m/2024-07/index.html')
  await settled(page)
  await shot(page, 'no-javascript')
  await page.click('.grid a >> nth=3')
  await page.waitForURL('**/p/**')
  const first = page.url()
  await page.click('a.step.next')
  await page.waitForURL((u) => u.href !== first)
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('a[download]')])
  const content = await fs.readFile(await download.path())
  assert.equal(createHash('sha256').update(content).digest('hex'), /p\/([0-9a-f]{64})/.exec(page.url())[1])
  await page.click('nav >> text=Albums')
  await page.click('.cards a >> text=Holidays')
  await page.click('.cards a >> text=Picos')
  await page.waitForURL('**/a/Holidays/2024%20Picos%20de%20Europa/index.html')
  assert.equal(await page.locator('.grid a').count(), 11)
  await page.end()
})

test('without JavaScript every part of a long month is reached by links', async () => {
  const page = await open(large, 'index.html', { javaScriptEnabled: false })
  const seen = new Set()
  for (let pages = 0; ; ++pages) {
    assert.ok(pages < 60)
    for (const href of await page.$$eval('h2 a', (links) => links.map((a) => a.getAttribute('href')))) seen.add(href.match(/m\/([^/]+)/)[1])
    const next = page.locator('.pager a[rel=next]')
    if (!(await next.count())) break
    await Promise.all([page.waitForNavigation(), next.click()])
  }
  const months = await fs.readdir(path.join(folder('large'), 'm'))
  assert.equal(seen.size, months.filter((m) => !m.endsWith('.html')).length)
  await page.end()
})

test('pages stay in their language, and lead to the other one', async () => {
  const page = await open(family, 'index.fr.html')
  assert.equal(await page.getAttribute('html', 'lang'), 'fr')
  assert.match(await page.textContent('.notice'), /en préparation/)
  await page.click('h2 a >> nth=0')
  await page.waitForURL('**/m/2024-07/index.fr.html')
  assert.equal(await page.textContent('h1'), 'Juillet 2024')
  await page.click('.grid a >> nth=0')
  await opened(page)
  await page.keyboard.press('i')
  await page.waitForSelector('.panel dl')
  assert.match(await page.textContent('.panel'), /Prise le\d+ juillet 2024/)
  await page.keyboard.press('Escape')
  await page.waitForSelector('.pswp', { state: 'detached' })
  await page.click('.lang')
  await page.waitForURL('**/m/2024-07/index.html')
  assert.equal(await page.textContent('h1'), 'July 2024')
  await page.end()
})

for (const scheme of ['light', 'dark'])
  test(`axe-core finds nothing on any kind of page, nor over an opened photo (${scheme})`, async () => {
    const check = async (page, name) => {
      await page.evaluate(axe)
      const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }))
      assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html.slice(0, 200)).join(' | ')}`), [], name)
    }
    for (const [name, [site, where]] of Object.entries(await kinds()))
      for (const size of [{ width: 1280, height: 800 }, { width: 390, height: 844 }]) {
        const page = await open(site, where, { colorScheme: scheme, viewport: size })
        await settled(page)
        await check(page, name)
        await page.end()
      }
    const page = await open(family, 'm/2024-07/index.html', { colorScheme: scheme })
    await page.click('.grid a >> nth=0')
    await opened(page)
    await page.keyboard.press('i')
    await page.waitForSelector('.panel dl')
    await page.waitForTimeout(300)
    await check(page, 'opened photo with details')
    await page.end()
  })

test('nothing moves while a page loads, however late its pictures and scripts are', async () => {
  for (const [name, [site, where]] of Object.entries(await kinds()))
    for (const viewport of [{ width: 1280, height: 800 }, { width: 390, height: 844 }])
      for (const javaScriptEnabled of [true, false]) {
        const context = await browser.newContext({ viewport, javaScriptEnabled })
        const page = await context.newPage()
        const cdp = await context.newCDPSession(page)
        await cdp.send('Performance.enable')
        await page.route(/\.(webp|jpg)$/, async (route) => {
          await new Promise((r) => setTimeout(r, 120))
          await route.continue().catch(() => {})
        })
        await page.route(/\.js$/, async (route) => {
          await new Promise((r) => setTimeout(r, 250))
          await route.continue().catch(() => {})
        })
        await cdp.send('PerformanceTimeline.enable', { eventTypes: ['layout-shift'] })
        let shift = 0
        cdp.on('PerformanceTimeline.timelineEventAdded', ({ event }) => (shift += event.layoutShiftDetails?.value || 0))
        await page.goto(site.url + where, { waitUntil: 'networkidle' })
        await page.mouse.wheel(0, 1200)
        await page.waitForTimeout(150)
        assert.equal(shift, 0, `${name}, ${viewport.width} wide, ${javaScriptEnabled ? 'with' : 'without'} scripts`)
        await context.close()
      }
})

test('the first screen is at most 600 kB, asks nobody else, and no original is loaded', async () => {
  const tooMuch = []
  for (const [where, site] of [['index.html', large], ['index.html', family], ['m/2024-07/index.html', family], ['a/index.html', family]])
    for (const view of [{ viewport: { width: 1280, height: 800 } }, { viewport: { width: 1920, height: 1080 } }, { viewport: { width: 390, height: 844 }, deviceScaleFactor: 3, isMobile: true, hasTouch: true }]) {
      const context = await browser.newContext(view)
      const page = await context.newPage()
      const cdp = await context.newCDPSession(page)
      await cdp.send('Network.enable')
      let bytes = 0
      const urls = []
      cdp.on('Network.loadingFinished', (e) => (bytes += e.encodedDataLength))
      cdp.on('Network.requestWillBeSent', (e) => urls.push(e.request.url))
      await page.goto(site.url + where, { waitUntil: 'networkidle' })
      const own = urls.filter((u) => !u.startsWith('data:'))
      assert.ok(own.every((u) => u.startsWith(site.url)), 'only this host is asked')
      assert.ok(!own.some((u) => u.includes('/o/')), 'no original')
      console.log(`    ${site === large ? 'large ' : ''}${where} at ${view.viewport.width}x${view.viewport.height}${view.deviceScaleFactor ? '@3' : ''}: ${Math.round(bytes / 1000)} kB, ${own.length} requests`)
      if (bytes > 600_000) tooMuch.push(`${where}: ${bytes} bytes at ${view.viewport.width}`)
      await context.close()
    }
  assert.deepEqual(tooMuch, [])
})

test('scripts are at most 35 kB and the stylesheet 8 kB, gzipped', async () => {
  let js = 0
  let css = 0
  const assets = path.join(folder('family'), 'assets')
  for (const name of await fs.readdir(assets)) {
    const size = gzipSync(await fs.readFile(path.join(assets, name)), { level: 9 }).length
    if (name.endsWith('.js')) js += size
    if (name.endsWith('.css')) css += size
  }
  console.log(`    scripts ${js} bytes, stylesheet ${css} bytes, gzipped`)
  assert.ok(js > 10_000 && js <= 35_000)
  assert.ok(css > 1_000 && css <= 8_000)
})

test('before its pictures come a page shows their colours; with scripts a blurred likeness', async () => {
  for (const javaScriptEnabled of [true, false]) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, javaScriptEnabled })
    const page = await context.newPage()
    await page.route(/\.(webp|jpg)$/, () => {})
    await page.goto(family.url + 'm/2024-07/index.html', { waitUntil: 'commit' })
    await page.waitForTimeout(1500)
    const boxes = await page.locator('.grid a').evaluateAll((links) => links.slice(0, 5).map((a) => ({ colour: getComputedStyle(a).backgroundColor, image: a.style.backgroundImage, height: a.clientHeight })))
    for (const b of boxes) {
      assert.notEqual(b.colour, 'rgba(0, 0, 0, 0)')
      assert.ok(b.height > 80)
      assert.equal(b.image.startsWith('url("data:image/png'), javaScriptEnabled)
    }
    await shot(page, javaScriptEnabled ? 'placeholders' : 'placeholders-no-javascript')
    await context.close()
  }
})

test('a long timeline grows by itself while one scrolls, with every month once, and nothing moves', async () => {
  const page = await open(large, 'index.html')
  const months = (await fs.readdir(path.join(folder('large'), 'm'))).filter((m) => !m.endsWith('.html')).length
  for (let i = 0; i < 200 && (await page.locator('.pager a[rel=next]').count()); ++i) {
    await page.mouse.wheel(0, 3000)
    await page.waitForTimeout(80)
  }
  const ids = await page.$$eval('h2', (all) => all.map((h) => h.id))
  assert.equal(new Set(ids).size, ids.length)
  assert.equal(ids.length, months)
  assert.equal(await page.evaluate(() => window.shift), 0)
  const long = await page.evaluate(() => window.longTasks)
  console.log(`    long tasks (ms): ${long.map(Math.round).join(' ') || 'none'}`)
  // What was added can be opened like the rest.
  const last = page.locator('.grid li:not([hidden]) a').last()
  await last.scrollIntoViewIfNeeded()
  await last.click()
  await opened(page)
  await page.keyboard.press('Escape')
  await page.end()
})

test('resizing the window lays the grid out anew, in full rows', async () => {
  const page = await open(family, 'm/2024-07/index.html')
  for (const width of [1700, 800, 360]) {
    await page.setViewportSize({ width, height: 800 })
    await page.waitForTimeout(200)
    const { right, scroll } = await page.evaluate(() => {
      const grid = document.querySelector('.grid').getBoundingClientRect()
      return { right: grid.right - Math.max(...[...document.querySelectorAll('.grid li')].map((l) => l.getBoundingClientRect().right)), scroll: document.documentElement.scrollWidth - innerWidth }
    })
    assert.ok(Math.abs(right) < 2)
    assert.ok(scroll <= 0, 'nothing to scroll sideways')
  }
  await page.end()
})

test('whoever wants less motion gets none', async () => {
  const page = await open(family, 'm/2024-07/index.html', { reducedMotion: 'reduce' })
  await page.click('.grid a >> nth=0')
  await page.waitForSelector('.pswp--open')
  await page.waitForTimeout(120)
  assert.equal(await page.$eval('.pswp__bg', (e) => getComputedStyle(e).opacity), '1')
  await page.keyboard.press('Escape')
  await page.waitForSelector('.pswp', { state: 'detached', timeout: 1000 })
  await page.end()
})

test('the folder works under any path, and a page that is missing says so', async () => {
  const deep = await serve(folder('family'), { under: '/deep/in/a/host' })
  const page = await open(deep, 'a/Grand-m%C3%A8re%20%26%20cie/index.html')
  assert.equal(await page.textContent('h1'), 'Grand-mère & cie')
  assert.ok(await page.$eval('.grid img', async (i) => (await i.decode(), i.naturalWidth > 0)))
  await page.click('.brand')
  await page.waitForURL(deep.url + 'index.html')
  await page.end()
  deep.close()
  const missing = await open(family, 'nothing/here')
  assert.equal(await missing.textContent('h1'), 'There is no such page')
  assert.match(await missing.$eval('body', (b) => getComputedStyle(b).fontFamily), /Inter/)
  await missing.click('main a')
  await missing.waitForURL(family.url + 'index.html')
  missing.complaints = []
  await missing.end()
})

test('the about page, one link away from every page, names the free software in these pages with its licences, with scripts and without', async () => {
  const lock = JSON.parse(await fs.readFile(new URL('../../server/gallery/ui/package-lock.json', import.meta.url), 'utf8'))
  const bundled = Object.keys(lock.packages[''].dependencies)
  assert.ok(bundled.length >= 3)
  for (const [kind, [site, where]] of Object.entries(await kinds())) {
    if (kind === 'about') continue
    const page = await open(site, where)
    assert.ok((await page.locator('a[href*="about/"]').count()) > 0, kind)
    await page.end()
  }
  for (const options of [{}, { javaScriptEnabled: false }]) {
    const page = await open(family, 'about/index.html', options)
    assert.equal(await page.locator('details').count(), bundled.length)
    for (const name of bundled) {
      const { version, license } = lock.packages[`node_modules/${name}`]
      const one = page.locator('details', { has: page.locator('summary', { hasText: `${name} ${version} (${license})` }) })
      assert.equal(await one.count(), 1, name)
      assert.equal(await one.locator('pre').isVisible(), false)
      await one.locator('summary').click()
      assert.equal(await one.locator('pre').isVisible(), true)
      assert.match(await one.locator('pre').textContent(), /copyright|permission is hereby granted|licen[cs]e/i)
    }
    await page.end()
  }
})

test('an empty gallery, and photos that still wait, say so', async () => {
  const page = await open(empty, 'index.html')
  assert.equal(await page.textContent('h1'), 'No photos yet')
  assert.match(await page.textContent('code'), /s3:\/\/photos\//)
  await page.end()
  const waiting = await open(family, 'index.html')
  assert.match(await waiting.textContent('.notice'), /^3 photos are being prepared/)
  await waiting.end()
})

test('screenshots to look at', async () => {
  const jobs = [
    ['timeline', family, 'index.html', {}], ['timeline-dark', family, 'index.html', { colorScheme: 'dark' }], ['month', family, 'm/2024-07/index.html', {}],
    ['large-screen', family, 'index.html', { viewport: { width: 1920, height: 1080 } }], ['albums', family, 'a/index.html', {}], ['album', family, 'a/Holidays/index.html', {}],
    ['photo', family, await photoPage(), {}], ['photo-dark-fr', family, (await photoPage()).replace('.html', '.fr.html'), { colorScheme: 'dark' }],
    ['archive', large, 'm/index.html', {}], ['about', family, 'about/index.html', {}], ['empty', empty, 'index.html', {}], ['missing', family, 'nothing/here', {}],
    ['phone', family, 'index.html', { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 }],
    ['phone-dark', family, 'm/2024-06/index.html', { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, colorScheme: 'dark' }],
    ['phone-photo', family, await photoPage(), { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 }],
    ['phone-albums', family, 'a/index.html', { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 }],
  ]
  for (const [name, site, where, options] of jobs) {
    const page = await open(site, where, options)
    await settled(page)
    await shot(page, name)
    await page.end()
  }
})
