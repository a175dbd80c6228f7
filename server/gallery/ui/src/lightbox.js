import PhotoSwipe from 'photoswipe'
import { fill, record } from './details.js'
import { whole } from './whole.js'
import { w } from './words.js'

const sizes = [320, 640, 1280, 2048]
const panelWidth = 340
const still = matchMedia('(prefers-reduced-motion: reduce)')
const up = document.body.dataset.up || ''

export const idOf = (a) => /p\/([0-9a-f]{64})\//.exec(a.href)?.[1]

function slide(a) {
  const img = a.querySelector('img')
  const id = idOf(a)
  if (!img || !id) return null
  const w0 = +img.getAttribute('width')
  const h0 = +img.getAttribute('height')
  const edge = Math.max(w0, h0)
  const made = sizes.filter((s, i) => (a.dataset.s >> i) & 1)
  const url = (s) => `${up}t/${id}/${s}.webp`
  const width = (s) => Math.round((w0 * Math.min(s, edge)) / edge)
  const largest = made[made.length - 1]
  const last = sizes.find((s) => s >= edge) || sizes[sizes.length - 1]
  return {
    waits: largest < last, id, element: a, href: a.href, alt: img.alt, src: url(largest), msrc: img.currentSrc || img.src, width: width(largest),
    height: Math.round((h0 * Math.min(largest, edge)) / edge), srcset: made.map((s) => `${url(s)} ${width(s)}w`).join(', '), thumbCropped: true,
  }
}

function button(name, html, title, order, onClick) {
  return { name, order, isButton: true, html: `<svg aria-hidden="true" class="pswp__icn" viewBox="0 0 32 32" width="32" height="32">${html}</svg>`, title, ariaLabel: title, onClick }
}

export function open(links, index) {
  const slides = links.map(slide)
  const panel = document.createElement('aside')
  panel.className = 'panel'
  panel.hidden = true
  panel.setAttribute('aria-label', w.details)
  const live = document.createElement('p')
  live.className = 'hide'
  live.setAttribute('aria-live', 'polite')
  const caption = document.createElement('p')
  caption.className = 'caption'

  const pswp = new PhotoSwipe({
    dataSource: slides, index, loop: false, bgOpacity: 1, preload: [1, 2], wheelToZoom: true, pinchToClose: true,
    showHideAnimationType: still.matches ? 'none' : 'zoom', showAnimationDuration: 260, hideAnimationDuration: 220, zoomAnimationDuration: still.matches ? 0 : 260,
    closeTitle: w.close, zoomTitle: w.zoom, arrowPrevTitle: w.previous, arrowNextTitle: w.next, errorMsg: w.failed, indexIndicatorSep: ' / ',
    paddingFn: (view) => ({ top: 0, bottom: !panel.hidden && view.x <= 800 ? panel.offsetHeight : 0, left: 0, right: !panel.hidden && view.x > 800 ? panelWidth : 0 }),
  })
  const current = () => pswp.currSlide && pswp.currSlide.data

  function showDetails(show) {
    panel.hidden = !show
    pswp.element.classList.toggle('with-panel', show)
    pswp.element.querySelector('.pswp__button--details')?.setAttribute('aria-expanded', show)
    if (show) fill(panel, up, current().id, current().href).then(() => pswp.element && pswp.updateSize(true))
    pswp.updateSize(true)
  }
  async function download() {
    const { id, href } = current()
    let name = ''
    try {
      name = (await record(up, id)).names[0].key.split('/').pop()
    } catch {
      location.href = href
      return
    }
    const a = document.createElement('a')
    a.href = `${up}o/${id}/${encodeURIComponent(name)}`
    a.download = name
    a.click()
  }

  pswp.on('uiRegister', () => {
    pswp.ui.registerElement(button('details', '<g fill="none" stroke="currentColor" stroke-width="2"><circle cx="16" cy="16" r="9"/><path d="M16 15v6M16 10.500v1.500" stroke-linecap="round"/></g>', w.details, 9, () => showDetails(panel.hidden)))
    pswp.ui.registerElement(button('download', '<path fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round" d="M16 7v12m-5-5 5 5 5-5M8 24h16"/>', w.download, 8, download))
  })
  pswp.on('change', () => {
    const { alt, id, href } = current()
    const place = w.of(pswp.currIndex + 1, slides.length)
    live.textContent = `${place}. ${alt}`
    caption.textContent = alt
    if (!panel.hidden) fill(panel, up, id, href)
  })
  // Of which only a small size is there yet: it is made next, because somebody looks.
  pswp.on('change', async () => {
    const data = current()
    if (!data.waits || data.asked) return
    data.asked = true
    const picture = await whole(data.href, () => !pswp.element || current() !== data)
    data.asked = false
    if (!picture) return
    const best = picture.querySelector('source') || picture.querySelector('img')
    const all = best.srcset.split(', ').map((s) => s.split(' '))
    const [src, wide] = all[all.length - 1]
    Object.assign(data, { waits: false, src, srcset: best.srcset, height: Math.round((data.height * parseInt(wide)) / data.width), width: parseInt(wide) })
    if (pswp.element) pswp.refreshSlideContent(slides.indexOf(data))
  })
  pswp.on('keydown', (event) => {
    const e = event.originalEvent
    if (e.ctrlKey || e.metaKey || e.altKey) return
    const key = e.key.toLowerCase()
    if (key === 'i') showDetails(panel.hidden)
    else if (key === 'd') download()
    else if (key === 'f' && document.fullscreenEnabled) document.fullscreenElement ? document.exitFullscreen() : pswp.element.requestFullscreen()
    else if (key === '+' || key === '=') pswp.zoomTo(pswp.currSlide.zoomLevels.secondary, undefined, still.matches ? 0 : 200)
    else if (key === '-') pswp.zoomTo(pswp.currSlide.zoomLevels.initial, undefined, still.matches ? 0 : 200)
    else return
    e.preventDefault()
  })

  // The rest of the page is out of reach while the photos are shown, and the browser's back button ends them.
  const rest = [...document.body.children]
  let byBack = false
  const onBack = () => {
    byBack = true
    pswp.close()
  }
  pswp.on('close', () => {
    for (const e of rest) e.inert = false
    removeEventListener('popstate', onBack)
    if (!byBack) history.back()
  })
  pswp.on('destroy', () => {
    const link = links[pswp.currIndex]
    if (link && !link.closest('[hidden]')) link.focus({ preventScroll: false })
  })
  pswp.init()
  pswp.element.setAttribute('aria-modal', 'true')
  pswp.element.setAttribute('aria-label', w.lightbox)
  pswp.element.append(caption, panel, live)
  for (const e of rest) e.inert = true
  history.pushState({ photo: true }, '')
  addEventListener('popstate', onBack, { once: true })
  return pswp
}
