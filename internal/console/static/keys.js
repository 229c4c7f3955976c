// The keyboard: j/k, Enter or o, m, e, /, ?, Esc. Keys that are typed into a field or that an input method is composing
// with are nobody's business.
import { close, open, openId, send } from './drawer.js';
import { idOf, move, select, selected } from './list.js';

const typing = (el) => el instanceof HTMLElement && (el.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(el.tagName));
const help = document.querySelector('#help');
const detail = () => document.querySelector('article.detail[data-detail-id]');

export function startKeys() {
  document.addEventListener('keydown', (e) => {
    if (e.isComposing || e.keyCode === 229 || e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.key === 'Escape') return escape(e);
    if (typing(e.target) || help.open) return;
    const act = actions[e.key];
    if (!act || act(e) === false) return;
    e.preventDefault();
  });
  document.querySelector('[data-open-help]')?.addEventListener('click', () => help.showModal());
}

const actions = {
  j: () => step(1),
  k: () => step(-1),
  o: openSelected,
  Enter: (e) => (e.target === document.body || e.target.id === 'main' ? openSelected() : false),
  m: () => press('form#triage button[value=mine]'),
  e: startClose,
  '/': () => {
    const search = document.querySelector('#search');
    search.focus();
    search.select();
  },
  '?': () => help.showModal(),
};

// step moves the selection; an open drawer follows it.
function step(by) {
  const row = move(by);
  if (!row) return false;
  if (document.activeElement !== document.body) document.activeElement.blur();
  if (openId()) open(idOf(row), { focus: false });
}

function openSelected() {
  const row = selected();
  if (!row) return false;
  if (openId() === idOf(row)) location.href = row.querySelector('.row-title').href; // once more: its page
  else open(idOf(row), { focus: false });
}

// shown makes sure the selected alert is the one in the drawer.
async function shown() {
  const row = selected();
  if (row?.dataset.alertId && openId() !== idOf(row)) return open(idOf(row), { focus: false });
  return Boolean(detail());
}

function press(selector) {
  if (!selected() && !detail()) return false;
  shown().then((ok) => {
    const button = ok && document.querySelector(selector);
    if (!button) return;
    if (button.closest('#drawer')) send(button.form, button);
    else button.form.requestSubmit(button);
  });
}

function startClose() {
  if (!selected() && !detail()) return false;
  shown().then((ok) => {
    const closing = ok && document.querySelector('#closing');
    if (!closing) return;
    closing.open = true;
    closing.scrollIntoView({ block: 'nearest' });
    closing.querySelector('input[name=reason]').focus();
  });
}

// escape undoes one thing: a menu, a field, the close form, the drawer, the selection.
function escape(e) {
  if (help.open) return; // the dialog closes itself
  const menu = document.querySelector('details.menu[open]');
  const unfolded = document.activeElement?.closest('.unfold[open]');
  if (menu) menu.open = false;
  else if (unfolded) {
    unfolded.open = false;
    document.activeElement.blur();
  } else if (typing(e.target)) e.target.blur();
  else if (openId()) close();
  else if (selected()) select(null);
  else return;
  e.preventDefault();
}
