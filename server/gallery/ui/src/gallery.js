// What a page can do more with scripts: placeholders, photos over the page, arrow keys, and the next part loaded before the end is reached.
import { thumbHashToDataURL } from 'thumbhash'
import { idOf, open } from './lightbox.js'
import { whole } from './whole.js'

const one = (selector, from = document) => from.querySelector(selector)
const all = (selector, from = document) => [...from.querySelectorAll(selector)]
const photoLinks = () => all('.grid a').filter((a) => one('img', a) && idOf(a))

// ---- placeholders: the thumbhash behind a picture that is not here yet
function behind(img) {
  if (img.complete && img.naturalWidth) return
  try {
    const hash = Uint8Array.from(atob(img.dataset.h), (c) => c.charCodeAt(0))
    const box = img.closest('.cover, .grid a, figure img') || img
    box.style.backgroundImage = `url(${thumbHashToDataURL(hash)})`
    img.classList.add('coming')
    const there = () => {
      img.classList.remove('coming')
      if (box === img) box.style.backgroundImage = ''
    }
    img.addEventListener('load', there, { once: true })
    img.addEventListener('error', there, { once: true })
  } catch {
    // A colour is enough.
  }
}
const near = new IntersectionObserver(
  (seen) => {
    for (const s of seen) {
      if (!s.isIntersecting) continue
      near.unobserve(s.target)
      behind(s.target)
    }
  },
  { rootMargin: '400px' },
)
const watch = (from) => all('img[data-h]', from).forEach((img) => near.observe(img))

// ---- photos over the page
document.addEventListener('click', (e) => {
  const a = e.target.closest('.grid a')
  if (!a || e.defaultPrevented || e.button || e.ctrlKey || e.metaKey || e.shiftKey || e.altKey) return
  const links = photoLinks()
  const index = links.indexOf(a)
  if (index < 0) return
  e.preventDefault()
  open(links, index)
})

// ---- arrow keys in a grid: one stop for Tab, arrows inside
function roving(from) {
  for (const grid of all('.grid', from)) all('a', grid).forEach((a, i) => (a.tabIndex = i ? -1 : 0))
}
function centre(e) {
  const b = e.getBoundingClientRect()
  return { x: b.left + b.width / 2, y: b.top + b.height / 2 }
}
function step(links, from, key) {
  const at = links.indexOf(from)
  if (key === 'ArrowRight') return links[at + 1]
  if (key === 'ArrowLeft') return links[at - 1]
  if (key === 'Home') return links[0]
  if (key === 'End') return links[links.length - 1]
  // The nearest in the row above or below.
  const here = centre(from)
  const sign = key === 'ArrowDown' ? 1 : -1
  let best = null
  for (const a of links) {
    const c = centre(a)
    const far = (c.y - here.y) * sign
    if (far < 8) continue
    const badness = far * 100 + Math.abs(c.x - here.x)
    if (!best || badness < best.badness) best = { a, badness }
  }
  return best && best.a
}
document.addEventListener('keydown', (e) => {
  const a = e.target.closest?.('.grid a')
  if (!a || e.ctrlKey || e.metaKey || e.altKey || !['ArrowRight', 'ArrowLeft', 'ArrowUp', 'ArrowDown', 'Home', 'End'].includes(e.key)) return
  const links = all('.grid li:not([hidden]) a')
  const to = step(links, a, e.key)
  if (!to) return
  e.preventDefault()
  to.focus()
})
document.addEventListener('focusin', (e) => {
  const a = e.target.closest?.('.grid a')
  if (a) all('a', a.closest('.grid')).forEach((b) => (b.tabIndex = b === a ? 0 : -1))
})

// ---- the photo's own page
const photo = one('.photo')
if (photo) {
  document.addEventListener('keydown', (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.shiftKey) return
    const to = { ArrowLeft: 'a.step.prev', ArrowRight: 'a.step.next', d: 'a.button[download]', Escape: '.crumbs a' }[e.key]
    one(to || 'none')?.click()
  })
  if (one('img[data-wait]', photo))
    whole(location.href).then((picture) => {
      if (!picture) return
      const img = one('img', picture)
      // What is shown stays until the larger one is here.
      const there = () => one('figure picture', photo).replaceWith(document.adoptNode(picture))
      const first = new Image()
      first.onload = first.onerror = there
      first.src = img.src
    })
}

// ---- the next part, before its link is reached
async function append(link) {
  const answer = await fetch(link.href)
  if (!answer.ok) return
  const next = new DOMParser().parseFromString(await answer.text(), 'text/html')
  for (const e of all('[href], [src]', next)) {
    for (const name of ['href', 'src']) if (e.getAttribute(name)) e.setAttribute(name, new URL(e.getAttribute(name), answer.url).href)
    if (e.srcset) e.srcset = e.srcset.split(', ').map((s) => new URL(s.split(' ')[0], answer.url).href + ' ' + s.split(' ')[1]).join(', ')
  }
  const pager = link.closest('.pager')
  const on = one('.pager a[rel=next]', next)
  // What was below is put anew below what comes, and so does not move before one's eyes.
  const below = pager.cloneNode(true)
  pager.remove()
  const grid = one('main > .grid')
  if (grid) grid.append(...all('main > .grid > li', next))
  else one('main').append(...all('main > .month', next))
  if (grid) grid.after(below)
  else one('main').append(below)
  const again = one('a[rel=next]', below)
  if (on) again.href = on.href
  else again.remove()
  if (!below.children.length) below.remove()
  const foot = one('.foot')
  const footAgain = foot.cloneNode(true)
  footAgain.hidden = Boolean(on)
  foot.replaceWith(footAgain)
  window.grenierLayout?.()
  watch(one('main'))
  roving(document)
  if (on) ahead.observe(again)
}
const ahead = new IntersectionObserver(
  (seen) => {
    for (const s of seen) {
      if (!s.isIntersecting) continue
      ahead.unobserve(s.target)
      append(s.target).catch(() => {}) // the link still works
    }
  },
  { rootMargin: '2500px' },
)

watch(document)
roving(document)
if (one('main > .grid, main > .month') && !one('.cards'))
  addEventListener('scroll', () => all('.pager a[rel=next]').forEach((a) => ahead.observe(a)), { once: true, passive: true })
