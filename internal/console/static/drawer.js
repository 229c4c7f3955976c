// The drawer: opens what is clicked in the list beside it, sends its forms, and keeps the address so that a reload or a
// copied link shows the same.
import { idOf, markOpen, part, refresh, rowOf, rows, select } from './list.js';
import { toast } from './toast.js';

const drawer = document.querySelector('#drawer');
const split = document.querySelector('.split');

export const openId = () => drawer?.querySelector('.detail')?.dataset.detailId ?? drawer?.querySelector('.detail')?.dataset.detailAgent;

let asked = 0; // the newest request wins

export async function open(id, { focus = true } = {}) {
  if (!drawer) return false;
  const mine = ++asked;
  let html;
  try {
    html = await part(drawer.dataset.base + encodeURIComponent(id), 'detail');
  } catch (err) {
    toast(err.message);
    return false;
  }
  if (mine !== asked) return false;
  show(html, id);
  if (focus) drawer.querySelector('.detail-tools [data-close]')?.focus({ preventScroll: true });
  return true;
}

function show(html, id) {
  drawer.replaceChildren(...new DOMParser().parseFromString(html, 'text/html').body.childNodes);
  drawer.hidden = false;
  drawer.scrollTop = 0;
  split.classList.add('has-drawer');
  markOpen(id);
  address(id);
  rowOf(id)?.scrollIntoView({ block: 'nearest' });
}

export function close() {
  if (!drawer || drawer.hidden) return false;
  const id = openId();
  asked++;
  drawer.hidden = true;
  drawer.replaceChildren();
  split.classList.remove('has-drawer');
  markOpen(null);
  address(null);
  rowOf(id)?.querySelector('.row-title')?.focus({ preventScroll: true });
  return true;
}

function address(id) {
  const url = new URL(location.href);
  if (id) url.searchParams.set('open', id);
  else url.searchParams.delete('open');
  history.replaceState(null, '', url);
}

// send posts a form of the drawer and shows the answer in it.
export async function send(form, button) {
  const data = new FormData(form, button);
  const id = openId();
  try {
    const html = await part(form.action, 'detail', { method: 'POST', body: new URLSearchParams(data) });
    show(html, id);
    // A row that leaves the list by this goes; the one after it is selected, so that the next key goes on from there.
    const row = rowOf(id);
    const neighbour = row?.nextElementSibling ?? row?.previousElementSibling;
    const after = row?.classList.contains('is-selected') && neighbour ? idOf(neighbour) : null;
    await refresh({ everything: true, removed: id });
    if (!rowOf(id) && after && rowOf(after)) select(rowOf(after));
  } catch (err) {
    toast(document.querySelector('#toast').dataset.failed + err.message);
  }
}

const plainClick = (e) => e.button === 0 && !e.metaKey && !e.ctrlKey && !e.shiftKey && !e.altKey;

export function startDrawer() {
  document.addEventListener('click', (e) => {
    const copy = e.target.closest('[data-copy]');
    if (copy) return copyText(copy);
    if (!drawer || !plainClick(e)) return;
    const row = rows().find((r) => r.contains(e.target));
    if (row && e.target.closest('.row-title')) {
      e.preventDefault();
      open(idOf(row), { focus: e.detail === 0 });
      return;
    }
    if (e.target.closest('#drawer [data-close]')) {
      e.preventDefault();
      close();
    }
    const other = e.target.closest('#drawer [data-open-alert]');
    if (other) {
      e.preventDefault();
      open(other.dataset.openAlert);
    }
  });
  document.addEventListener('submit', (e) => {
    if (!drawer?.contains(e.target) || e.target.method !== 'post') return;
    e.preventDefault();
    send(e.target, e.submitter);
  });
  if (openId()) markOpen(openId());
}

async function copyText(button) {
  const text = document.getElementById(button.dataset.copy).textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without TLS there is no clipboard: select it, so that Ctrl-C does it.
    getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
    return;
  }
  toast(button.dataset.done);
}
