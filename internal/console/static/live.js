// What arrives by itself: one stream of server-sent events a tab. Without TLS browsers allow six connections to a host, so
// there a hidden tab closes its stream and catches up when it is looked at again.
import { refresh } from './list.js';
import { toast } from './toast.js';

const list = document.querySelector('#alert-list');
const badge = document.querySelector('#live');
const title = document.title;
const scarce = location.protocol === 'http:';
const retryAfter = 30_000; // ms, when the server had no stream for us; after a broken one the browser comes back itself

let stream = null;
let last = Number(list?.dataset.seq ?? -1);
let rev = null;

function state(name) {
  if (!badge) return;
  badge.dataset.state = name;
  badge.querySelector('span').textContent = badge.dataset[{ on: 'textOn', off: 'textOff', connecting: 'textConnecting' }[name]];
}

function connect() {
  if (stream || (scarce && document.hidden) || !document.querySelector('#live-open-count')) return;
  stream = new EventSource(last >= 0 ? `/live?seq=${last}` : '/live');
  stream.addEventListener('open', () => state('on'));
  stream.addEventListener('state', (e) => update(JSON.parse(e.data)));
  stream.addEventListener('end', () => {
    disconnect();
    state('off');
    toast(document.querySelector('#toast').dataset.end);
  });
  stream.addEventListener('error', () => {
    // The browser tries again by itself unless the answer was no stream at all.
    const over = stream?.readyState === EventSource.CLOSED;
    state(over ? 'off' : 'connecting');
    if (over) {
      disconnect();
      setTimeout(connect, retryAfter);
    }
  });
}

function disconnect() {
  stream?.close();
  stream = null;
}

function update(u) {
  for (const [id, text] of Object.entries(u.text)) {
    const el = document.getElementById(id);
    if (!el) continue;
    if (el.textContent !== text) el.textContent = text;
    el.classList.toggle('zero', u.zero[id]);
    el.closest('.lv, a.stat')?.classList.toggle('zero', u.zero[id]);
  }
  document.title = u.triage > 0 ? `(${u.triage}) ${title}` : title;
  const arrived = u.seq > last;
  // The first state says what the page shows already, unless something arrived while it loaded.
  const changed = rev !== null && rev !== u.rev;
  rev = u.rev;
  last = u.seq;
  if (arrived || changed) refresh({ everything: !arrived }).catch(() => state('connecting'));
  if (u.tests > 0 && !/[?&]tab=tests/.test(location.search)) {
    const t = document.querySelector('#toast').dataset;
    toast(t.test, t.tests, '/alerts?tab=tests');
  }
}

export function startLive() {
  connect();
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden) connect();
    else if (scarce) disconnect();
  });
  addEventListener('pagehide', disconnect);
  addEventListener('pageshow', connect);
}
