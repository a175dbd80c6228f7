// A photo of which only the smallest size is there: whoever looks at it makes the others come next, and its page shows them when they do.

const rounds = 40
const pause = (round) => new Promise((r) => setTimeout(r, Math.min(700 + 200 * round, 3000)))

// The picture of a photo's page once it has all its sizes, with addresses that hold anywhere; null when it did not come in time, or stop() says so.
export async function whole(href, stop = () => false) {
  for (let round = 0; round < rounds && !stop(); round++) {
    const answer = await fetch(href, { cache: 'no-cache' }).catch(() => null)
    if (answer?.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html')
      const picture = page.querySelector('figure picture')
      if (!picture) return null
      if (!picture.querySelector('img[data-wait]')) {
        const absolute = (address) => new URL(address, answer.url).href
        for (const e of picture.querySelectorAll('[srcset]')) e.srcset = e.getAttribute('srcset').split(', ').map((s) => absolute(s.split(' ')[0]) + ' ' + s.split(' ')[1]).join(', ')
        const img = picture.querySelector('img')
        img.src = absolute(img.getAttribute('src'))
        return picture
      }
    }
    await pause(round)
  }
  return null
}
