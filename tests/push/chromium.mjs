// Two Chromium pages chat and call each other through the demo portal, a third one without WebSockets listens by long polling.
// Arguments: the front's address, the folder of the packages, a folder for pictures of the pages.
// Prints one line per scenario; fails with the first that does not hold.
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [front, folder, pictures] = process.argv.slice(2);
const { chromium } = createRequire(`${folder}/package.json`)('playwright-core');
const PATIENCE = 30_000;
// What a browser without WebSockets is like to the page: each attempt fails.
const NO_SOCKETS = () => {
  window.WebSocket = class {
    constructor() { setTimeout(() => this.onclose?.({ code: 1006 })); }
  };
};

const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage'] });
const faults = [];

async function open(name, script) {
  const context = await browser.newContext({ viewport: { width: 1100, height: 760 } });
  if (script) await context.addInitScript(script);
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on('pageerror', error => faults.push(`${name}: ${error}`));
  page.on('console', message => { if (message.type() === 'error') faults.push(`${name}: ${message.text()}`); });
  await page.goto(`http://${front}/live/`);
  return page;
}

const sees = (page, list, text) => page.locator(`#${list}`).getByText(text, { exact: true }).waitFor();
const state = (page, text) => page.locator('#state').getByText(text, { exact: true }).waitFor();
const picture = (page, name) => page.screenshot({ path: join(pictures, `${name}.png`) });
const name = page => page.locator('.hero b').innerText();

async function say(page, text) {
  await page.locator('#say input').fill(text);
  await page.locator('#say button').click();
}

async function scenario(what, steps) {
  await steps();
  if (faults.length) throw new Error(faults.join('\n'));
  console.log(`ok: ${what}`);
}

try {
  const [one, two] = [await open('one'), await open('two')];
  const [first, second] = [await name(one), await name(two)];
  await scenario('both listen, and see each other online', async () => {
    for (const [page, other] of [[one, second], [two, first]]) {
      await state(page, 'WebSocket');
      await page.locator('#online li', { hasText: other }).waitFor();
      await page.locator('#answer').waitFor({ state: 'hidden' });
    }
  });
  await scenario('what one says, both hear', async () => {
    await say(one, 'Hello from one');
    await say(two, '<b>Привет</b> & "hello" from two 🙂 #!NGINXNME!#');
    for (const page of [one, two]) {
      await sees(page, 'chat', `${first}: Hello from one`);
      await sees(page, 'chat', `${second}: <b>Привет</b> & "hello" from two 🙂 #!NGINXNME!#`);
    }
  });
  await scenario('one calls two: ringing, answered, browser to browser, hung up', async () => {
    await one.locator('#online li', { hasText: second }).getByRole('button').click();
    await sees(two, 'call', `${first} is calling`);
    await picture(two, 'ringing');
    await two.locator('#answer').click();
    await sees(one, 'call', `In a call with ${second}`);
    await sees(one, 'events', `Call::ping from ${second}`);
    await sees(two, 'events', `Call::ping from ${first}`);
    await picture(one, 'call');
    await one.locator('#hangup').click();
    await sees(two, 'call', `${first} has hung up.`);
    for (const page of [one, two]) await page.locator('#hangup').waitFor({ state: 'hidden' });
  });
  await scenario('a page that is loaded again has the chat', async () => {
    await two.reload();
    await sees(two, 'chat', `${first}: Hello from one`);
    if (await two.locator('#chat li').count() !== 2) throw new Error('twice, or too little');
  });
  await scenario('without WebSockets the page polls', async () => {
    const three = await open('three', NO_SOCKETS);
    await state(three, 'long polling');
    await sees(three, 'chat', `${first}: Hello from one`);
    await say(two, 'Do you hear me?');
    await sees(three, 'chat', `${second}: Do you hear me?`);
    await say(three, 'I do.');
    await sees(one, 'chat', `${await name(three)}: I do.`);
    await picture(three, 'polling');
  });
  await picture(one, 'one');
  await picture(two, 'two');
} finally {
  await browser.close();
}
