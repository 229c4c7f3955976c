// Starts what `make run` starts, in a folder of its own, and a browser; stops and removes all of it again.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const startLimit = 600_000; // ms; the programs are built by then but for what has changed, so this is mostly the first password's hashing
const stopLimit = 60_000; // ms; tools/run gives each program 10 s

// startStack returns the running console and agent: { url, user, password, commands, shell(command), log(name), stop() }.
// commands are the "try this" lines as printed.
export async function startStack() {
  const dir = mkdtempSync(join(tmpdir(), 'sekisho-browser-'));
  const home = join(dir, 'home');
  mkdirSync(home);
  const child = spawn(join(root, 'tools/run'), {
    cwd: root,
    env: { ...process.env, RUN_DIR: join(dir, 'run'), SEKISHO_LANG: 'en' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exited = new Promise((resolve) => child.once('exit', resolve));
  let out = '';
  let messages = '';
  child.stdout.on('data', (b) => (out += b));
  child.stderr.on('data', (b) => (messages += b));

  const pids = () =>
    existsSync(join(dir, 'run'))
      ? readdirSync(join(dir, 'run'))
          .filter((f) => f.endsWith('.pid'))
          .map((f) => Number(readFileSync(join(dir, 'run', f), 'utf8')))
      : [];
  const killAll = () => {
    for (const pid of [...pids(), child.pid]) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // has ended already
      }
    }
  };
  process.once('exit', killAll); // if the test run itself is ended
  const stop = async () => {
    child.kill('SIGTERM');
    const late = setTimeout(killAll, stopLimit);
    await exited;
    clearTimeout(late);
    process.removeListener('exit', killAll);
    rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
  };

  try {
    const end = Date.now() + startLimit;
    while (!out.includes('Ctrl-C')) {
      if (child.exitCode !== null) throw new Error(`tools/run ended with status ${child.exitCode}:\n${out}${messages}`);
      if (Date.now() > end) throw new Error(`tools/run printed no hint within ${startLimit} ms:\n${out}${messages}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const found = (what, pattern) => {
      const m = out.match(pattern);
      if (!m) throw new Error(`tools/run printed no ${what}:\n${out}`);
      return m[1];
    };
    return {
      url: found('address', /(https?:\/\/127\.0\.0\.1:\d+)/),
      user: found('user', /user[^:\n]*:?\s+(\S+)/i),
      password: found('password', /password[^:\n]*:?\s+(\S+)/i),
      commands: out.split('\n').filter((l) => l.startsWith('  ')).map((l) => l.trim()),
      shell(command) {
        const r = spawnSync('sh', ['-c', command], { cwd: root, env: { ...process.env, HOME: home }, encoding: 'utf8', timeout: 180_000 });
        if (r.status !== 0) throw new Error(`${command}: status ${r.status}\n${r.stdout}${r.stderr}`);
        return r.stdout;
      },
      log: (name) => readFileSync(join(dir, 'run', `${name}.log`), 'utf8'),
      stop,
    };
  } catch (err) {
    await stop();
    throw err;
  }
}

// openBrowser returns Debian's Chromium with a fresh profile and no traffic of its own.
export function openBrowser() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    timeout: 180_000, // ms; its first start on a machine takes long
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage', // a container's has 64 MB
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

// watchPage collects what a page must never do: script errors, refusals by its own content security policy, requests
// to anywhere but the console. The list it returns stays empty on a good page.
export function watchPage(page, url) {
  const complaints = [];
  page.on('pageerror', (err) => complaints.push(`script error: ${err.message}`));
  page.on('console', (m) => {
    if (m.type() === 'error' || /content security policy/i.test(m.text())) complaints.push(`console: ${m.text()}`);
  });
  page.on('request', (r) => {
    if (!r.url().startsWith(`${url}/`) && !r.url().startsWith('data:')) complaints.push(`request to ${r.url()}`);
  });
  return complaints;
}
