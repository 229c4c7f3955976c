// Entry of the console's script. Every page works without it; it adds the drawer without reload (drawer.js), the
// keyboard (keys.js) and what arrives by itself (live.js).
import { startDrawer } from './drawer.js';
import { startKeys } from './keys.js';
import { startLive } from './live.js';

document.documentElement.classList.add('script');
startDrawer();
startKeys();
startLive();

// On a telephone the tabs are a strip that is moved sideways: the one that is open is in sight.
document.querySelector('#tabs [aria-current], .tabs [aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'center' });

// A menu closes when the click goes elsewhere.
document.addEventListener('click', (e) => {
  for (const menu of document.querySelectorAll('details.menu[open]')) {
    if (!menu.contains(e.target)) menu.open = false;
  }
});
