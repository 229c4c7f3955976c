// Short notices at the bottom of the page.
const box = document.querySelector('#toast');
let timer;

// toast shows a text for ten seconds, with a link if there is one.
export function toast(text, label, href) {
  if (!box) return;
  box.replaceChildren(document.createTextNode(text));
  if (href) {
    const a = document.createElement('a');
    a.href = href;
    a.textContent = label;
    box.append(a);
  }
  box.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => (box.hidden = true), 10_000);
}
