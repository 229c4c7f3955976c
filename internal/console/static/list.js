// The list on the left: which row is selected, which is open, and bringing rows up to date without any of them
// jumping away under the pointer.

const list = document.querySelector('#alert-list') ?? document.querySelector('#endpoint-list tbody');
const newBar = document.querySelector('#new-bar');
const empty = document.querySelector('#empty');

export const rows = () => (list ? [...list.children] : []);
export const idOf = (row) => row.dataset.alertId ?? row.dataset.agentId;
export const rowOf = (id) => rows().find((r) => idOf(r) === id);
export const selected = () => rows().find((r) => r.classList.contains('is-selected'));

export function select(row) {
  for (const r of rows()) r.classList.toggle('is-selected', r === row);
  row?.scrollIntoView({ block: 'nearest' });
  if (!row) showWaiting();
}

export function markOpen(id) {
  for (const r of rows()) r.classList.toggle('is-open', idOf(r) === id);
}

// move selects the row that is step further than the one selected, open, or first.
export function move(step) {
  const all = rows();
  if (all.length === 0) return null;
  const at = all.findIndex((r) => r.classList.contains('is-selected'));
  const from = at >= 0 ? at : all.findIndex((r) => r.classList.contains('is-open'));
  const to = from < 0 ? 0 : Math.min(all.length - 1, Math.max(0, from + step));
  select(all[to]);
  return all[to];
}

// parts asks the server for a part of a page; errors carry what it said.
export async function part(url, name, options = {}) {
  const answer = await fetch(url, { ...options, headers: { 'Sekisho-Part': name, ...options.headers } });
  const text = await answer.text();
  if (!answer.ok && answer.status !== 422) throw Object.assign(new Error(text.trim()), { status: answer.status });
  return text;
}

const parse = (html) => new DOMParser().parseFromString(html, 'text/html').body;

let waiting = []; // rows that arrived while one was selected
let queue = Promise.resolve(); // refreshes run one after the other
let queued = 0;
let everythingNext = false;

const maxRows = 1000; // a tab that is open for days starts anew; its address holds filter and drawer

// refresh fetches what changed: rows newer than those known or, with everything, the whole first page. Rows that are not
// in this list any more are dimmed, or removed if that is the visitor's own doing (removed is such a row's id).
export function refresh({ everything = false, removed = null } = {}) {
  if (!list?.dataset.updates || list.dataset.first !== 'true') return Promise.resolve();
  if (queued > 1 && !removed) {
    everythingNext ||= everything; // the one that has not begun will see it
    return queue;
  }
  queued++;
  const run = queue.then(() => fetchRows(everything, removed)).finally(() => queued--);
  queue = run.catch(() => {});
  return run;
}

async function fetchRows(everything, removed) {
  everything ||= everythingNext;
  everythingNext = false;
  const url = list.dataset.updates + (everything ? '' : `&after_seq=${list.dataset.seq}`);
  const fresh = parse(await part(url, 'list', { headers: { 'Sekisho-Live': '1' } })).querySelector('ol');
  apply([...fresh.children], everything, removed);
  list.dataset.seq = Math.max(Number(list.dataset.seq), Number(fresh.dataset.seq));
  if (rows().length > maxRows) location.reload();
}

function apply(fresh, everything, removed) {
  const known = new Set([...rows(), ...waiting].map(idOf));
  const arrived = [];
  for (const row of fresh) {
    const old = rowOf(idOf(row));
    if (old) replace(old, row);
    else if (!known.has(idOf(row))) arrived.push(row);
  }
  if (everything) {
    const here = new Set(fresh.map(idOf));
    // A full first page says nothing of rows beyond it.
    const full = fresh.length >= 100;
    rows().forEach((r, i) => {
      if (here.has(idOf(r)) || (full && i >= 90)) return;
      if (idOf(r) === removed) r.remove();
      else r.classList.add('is-gone');
    });
  }
  waiting = [...arrived, ...waiting];
  if (selected()) showBar();
  else showWaiting();
  if (empty) empty.hidden = rows().length > 0;
}

function replace(old, row) {
  for (const c of ['is-selected', 'is-open']) row.classList.toggle(c, old.classList.contains(c));
  if (Number(row.dataset.seq) > Number(old.dataset.seq)) row.classList.add('is-new');
  old.replaceWith(row);
}

function showBar() {
  if (!newBar || waiting.length === 0) return;
  newBar.textContent = newBar.dataset.text.replace('{n}', waiting.length);
  newBar.hidden = false;
}

// showWaiting puts in what arrived, newest first, highlighted.
export function showWaiting() {
  if (newBar) newBar.hidden = true;
  if (waiting.length === 0) return;
  for (const row of waiting) row.classList.add('is-new');
  const pane = list.closest('.pane');
  const before = pane.scrollHeight;
  list.prepend(...waiting);
  waiting = [];
  // Whoever has scrolled down keeps what they read where it is.
  if (pane.scrollTop > 0) pane.scrollTop += pane.scrollHeight - before;
  if (empty) empty.hidden = true;
}

newBar?.addEventListener('click', () => {
  select(null);
  showWaiting();
  list.closest('.pane').scrollTo({ top: 0 });
});
