// The panel that tells what is known of a photo: from its record, i/<id>.json.
import { lang, w } from './words.js'

const number = (v, digits = 1) => v.toLocaleString(lang, { maximumFractionDigits: digits })

function time(record) {
  const t = /^(\d+)-(\d+)-(\d+)T(\d+):(\d+)/.exec(record.taken || '')
  if (!t) return ''
  const [, y, m, d, h, min] = t.map(Number)
  const text = new Intl.DateTimeFormat(lang === 'en' ? 'en-GB' : 'fr', { dateStyle: 'long', timeStyle: 'short', timeZone: 'UTC' })
  return text.format(new Date(Date.UTC(y, m - 1, d, h, min)))
}

function facts(r) {
  const light = []
  if (r.exposure) light.push(r.exposure <= 0.3 ? `1/${Math.round(1 / r.exposure)} s` : `${number(r.exposure)} s`)
  if (r.f) light.push(`f/${number(r.f)}`)
  if (r.iso) light.push(`ISO ${r.iso}`)
  const make = r.make && !(r.model || '').startsWith(r.make.split(' ')[0]) ? r.make + ' ' : ''
  const key = r.names && r.names[0] ? r.names[0].key : ''
  return [
    [w.taken, time(r)],
    [w.camera, make + (r.model || '')],
    [w.lens, r.lens],
    [w.exposure, light.join(' · ')],
    [w.focal, r.focal && `${number(r.focal)} mm`],
    [w.size, r.width && `${number(r.width)} × ${number(r.height)}`],
    [w.place, r.place && `${number(r.place[0], 4)}, ${number(r.place[1], 4)}`],
    [w.file, key.split('/').pop()],
  ].filter((f) => f[1])
}

const records = new Map()
export function record(up, id) {
  if (!records.has(id)) {
    const asked = fetch(`${up}i/${id}.json`).then((r) => (r.ok ? r.json() : Promise.reject(r.status)))
    asked.catch(() => records.delete(id))
    records.set(id, asked)
  }
  return records.get(id)
}

export async function fill(panel, up, id, href) {
  panel.dataset.id = id
  const list = document.createElement('dl')
  list.className = 'facts'
  let note = ''
  try {
    for (const [name, value] of facts(await record(up, id))) {
      const row = list.appendChild(document.createElement('div'))
      row.appendChild(document.createElement('dt')).textContent = name
      row.appendChild(document.createElement('dd')).textContent = value
    }
  } catch {
    note = w.noDetails
  }
  if (panel.dataset.id !== id) return // another photo is shown by now
  const link = document.createElement('a')
  link.href = href
  link.textContent = w.page
  panel.replaceChildren(list, note, link)
}
