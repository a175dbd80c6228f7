// Runs before the page is painted: gives every grid its rows, so that nothing moves afterwards, and lets pictures wait until one comes near.
// Small, because the page waits for it.
import justified from 'justified-layout'

const root = document.documentElement
root.classList.add('js')

function rowHeight(width) {
  if (width < 520) return 132
  if (width < 900) return 176
  return width < 1500 ? 188 : 236
}

function place(grid, width) {
  const items = [...grid.children]
  const ratios = items.map((li) => {
    const img = li.querySelector('img')
    return img ? Math.min(4, Math.max(0.4, img.getAttribute('width') / img.getAttribute('height'))) : 1.5
  })
  const gap = width < 520 ? 3 : 6
  const cut = grid.classList.contains('cut')
  const rows = justified(ratios, {
    containerWidth: width,
    containerPadding: 0,
    boxSpacing: gap,
    targetRowHeight: rowHeight(width),
    targetRowHeightTolerance: 0.3,
    maxNumRows: cut ? (width < 520 ? 3 : 2) : Number.POSITIVE_INFINITY,
  })
  let shown = rows.boxes.length
  // The first photos of a month are shown in whole rows, unless there is not one of them.
  if (cut && rows.widowCount && rows.widowCount < shown) shown -= rows.widowCount
  let height = 0
  items.forEach((li, i) => {
    li.hidden = i >= shown
    if (li.hidden) return
    const b = rows.boxes[i]
    const s = li.style
    s.width = b.width + 'px'
    s.height = b.height + 'px'
    s.transform = `translate(${b.left}px,${b.top}px)`
    height = Math.max(height, b.top + b.height)
    const img = li.querySelector('img')
    if (img) img.sizes = Math.ceil(b.width) + 'px'
  })
  grid.style.height = height + 'px'
}

// Browsers load lazy pictures far ahead; a home's line is slow, so here it is less than a screen.
const near = new IntersectionObserver(
  (seen) => {
    for (const s of seen) if (s.isIntersecting) bring(s.target)
  },
  { rootMargin: '240px' },
)
function bring(img) {
  near.unobserve(img)
  if (img.dataset.srcset) img.srcset = img.dataset.srcset
  if (img.dataset.src) img.src = img.dataset.src
  delete img.dataset.srcset
  delete img.dataset.src
}
function wait(img) {
  if (img.dataset.waits) return
  img.dataset.waits = 1
  for (const name of ['srcset', 'src']) {
    if (!img.hasAttribute(name)) continue
    img.dataset[name] = img.getAttribute(name)
    img.removeAttribute(name)
  }
  near.observe(img)
}
addEventListener('beforeprint', () => document.querySelectorAll('img[data-src]').forEach(bring))

const placed = new WeakMap() // grids, and for which width and number of photos
let lastWidth = 0
function layout(all) {
  const width = document.body.clientWidth
  if (!all && width === lastWidth) return
  lastWidth = width
  const grids = [...document.querySelectorAll('.grid')]
  const widths = grids.map((g) => Math.floor(g.getBoundingClientRect().width))
  grids.forEach((g, i) => {
    const as = `${widths[i]} ${g.children.length}`
    if (placed.get(g) === as) return
    placed.set(g, as)
    place(g, widths[i])
  })
}
function show() {
  document.querySelectorAll('.grid img, .cards img').forEach(wait)
  layout(true)
}
window.grenierLayout = show

function start() {
  root.classList.add('ready')
  show()
  addEventListener('resize', () => requestAnimationFrame(() => layout(false)))
}
// The page has been read, and later scripts are not waited for.
document.addEventListener('readystatechange', start, { once: true })
