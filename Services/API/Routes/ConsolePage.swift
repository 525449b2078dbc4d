/// The console's three files. No framework, nothing from elsewhere, nothing inline; all text from outside goes through textContent.
enum ConsolePage {
    static let html = """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="color-scheme" content="light dark">
        <title>Slipway</title>
        <link rel="stylesheet" href="/console.css">
        <script src="/console.js" defer></script>
        </head>
        <body>
        <header>
        <h1>Slipway</h1>
        <p id="summary" role="status"></p>
        <button id="logout" type="button" hidden>Log out</button>
        </header>
        <main>
        <form id="login" hidden>
        <label for="token">Token</label>
        <input id="token" type="password" autocomplete="off" spellcheck="false" required placeholder="slp_…">
        <button type="submit">Log in</button>
        <p id="refusal" role="alert"></p>
        <p class="quiet">The operator’s token is in <code>keys/operator.token</code> of the suite’s home directory.</p>
        </form>
        <div id="board" hidden>
        <section aria-labelledby="apps-title">
        <h2 id="apps-title">Apps</h2>
        <p id="no-apps" class="quiet" hidden>None yet. In a repository: <code>slipway app create NAME</code>, then <code>git push slipway main</code>.</p>
        <div id="apps"></div>
        </section>
        <section aria-labelledby="components-title">
        <h2 id="components-title">Components</h2>
        <ul id="components"></ul>
        <ul id="notes"></ul>
        </section>
        <section aria-labelledby="events-title">
        <h2 id="events-title">Events <span id="live" class="quiet"></span></h2>
        <div class="scroll" tabindex="0" role="region" aria-labelledby="events-title">
        <table>
        <thead><tr><th scope="col">Number</th><th scope="col">Time</th><th scope="col">Type</th><th scope="col">Subject</th><th scope="col">By</th></tr></thead>
        <tbody id="events"></tbody>
        </table>
        </div>
        </section>
        </div>
        </main>
        </body>
        </html>

        """

    static let css = """
        :root {
          --ground: #fbfbfa; --surface: #ffffff; --line: #dcdcd8; --text: #1c1d1f; --quiet: #63666b;
          --good: #14773a; --busy: #8a5a00; --bad: #b3261e; --link: #1f5fbf;
        }
        @media (prefers-color-scheme: dark) {
          :root {
            --ground: #15171a; --surface: #1d2024; --line: #34383e; --text: #e6e7e9; --quiet: #9aa0a8;
            --good: #5dc987; --busy: #e0ae52; --bad: #f28b82; --link: #8ab4f8;
          }
        }
        * { box-sizing: border-box; }
        body { margin: 0; background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
        header { display: flex; align-items: baseline; gap: 1rem; padding: 1rem 1.5rem; border-bottom: 1px solid var(--line); }
        header p { margin: 0; color: var(--quiet); flex: 1; }
        h1 { font-size: 1.15rem; margin: 0; }
        h2 { font-size: 1rem; margin: 0 0 .6rem; }
        main { max-width: 72rem; margin: 0 auto; padding: 1.5rem; }
        section { margin-bottom: 2rem; }
        a { color: var(--link); }
        code { font: .9em ui-monospace, monospace; }
        .quiet { color: var(--quiet); font-weight: normal; font-size: .875rem; }
        .card { background: var(--surface); border: 1px solid var(--line); border-radius: 8px; padding: .9rem 1rem; margin-bottom: .75rem; }
        .card h3 { margin: 0 0 .4rem; font-size: 1rem; overflow-wrap: anywhere; }
        .row { display: flex; flex-wrap: wrap; gap: .3rem 1rem; padding: .25rem 0; overflow-wrap: anywhere; }
        .row > :first-child { min-width: 7rem; font-weight: 600; }
        ul { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: .5rem; }
        #components li { background: var(--surface); border: 1px solid var(--line); border-radius: 8px; padding: .35rem .7rem; }
        #notes { display: block; margin-top: .6rem; color: var(--busy); }
        .good::before, .busy::before, .bad::before { margin-right: .4em; }
        .good::before { content: "●"; color: var(--good); }
        .busy::before { content: "◐"; color: var(--busy); }
        .bad::before { content: "▲"; color: var(--bad); }
        .bad { color: var(--bad); }
        .scroll { max-height: 26rem; overflow: auto; border: 1px solid var(--line); border-radius: 8px; background: var(--surface); }
        table { width: 100%; border-collapse: collapse; font: 13px/1.4 ui-monospace, monospace; }
        th, td { text-align: left; padding: .3rem .75rem; white-space: nowrap; }
        thead th { position: sticky; top: 0; background: var(--surface); border-bottom: 1px solid var(--line); }
        td:nth-child(4) { white-space: normal; overflow-wrap: anywhere; }
        form { max-width: 28rem; }
        form label { display: block; font-weight: 600; }
        input { width: 100%; padding: .5rem; margin: .3rem 0 .6rem; font: inherit; color: inherit; background: var(--surface); border: 1px solid var(--line); border-radius: 6px; }
        button { padding: .45rem .9rem; font: inherit; color: inherit; background: var(--surface); border: 1px solid var(--line); border-radius: 6px; cursor: pointer; }
        :focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
        [hidden] { display: none !important; }

        """

    static let script = """
        'use strict';
        const byId = (id) => document.getElementById(id);
        const kept = 200;
        let stream = null;
        let pending = null;

        // Every text from outside enters the page here, as text.
        function element(name, text, className) {
          const made = document.createElement(name);
          if (text !== undefined && text !== null) made.textContent = String(text);
          if (className) made.className = className;
          return made;
        }

        async function ask(path, options) {
          const response = await fetch(path, Object.assign({ credentials: 'same-origin' }, options));
          const body = await response.json().catch(() => ({}));
          if (!response.ok) {
            const failure = new Error(body.detail || 'the answer was ' + response.status);
            failure.status = response.status;
            throw failure;
          }
          return body;
        }

        function link(url) {
          const made = element('a', url);
          if (/^https?:\\/\\//.test(url)) { made.href = url; made.rel = 'noreferrer'; }
          return made;
        }

        function mark(environment) {
          if (environment.state === 'deploying') return 'busy';
          if (environment.state === 'live') return environment.last && environment.last.state === 'rolled back' ? 'busy' : 'good';
          return environment.last && environment.last.state === 'rolled back' ? 'bad' : 'busy';
        }

        function showApp(app) {
          const card = element('div', null, 'card');
          card.append(element('h3', app.name));
          if (app.environments.length === 0) card.append(element('p', 'Nothing released yet: git push slipway ' + app.defaultBranch, 'quiet'));
          for (const environment of app.environments) {
            const row = element('div', null, 'row');
            row.append(element('span', environment.name));
            row.append(element('span', environment.state, mark(environment)));
            if (environment.version) row.append(element('span', environment.version + ' ' + environment.commit.slice(0, 7)));
            if (environment.title) row.append(element('span', environment.title));
            if (environment.url) row.append(link(environment.url));
            const ready = environment.instances.filter((one) => one.state === 'ready').length;
            if (environment.instances.length) row.append(element('span', ready + ' of ' + environment.instances.length + ' instances ready', 'quiet'));
            if (environment.since) row.append(element('span', 'since ' + new Date(environment.since).toLocaleString(), 'quiet'));
            card.append(row);
            if (environment.last && environment.last.state === 'rolled back') {
              card.append(element('p', environment.last.version + ' was rolled back: ' + environment.last.reason, 'bad'));
            }
          }
          return card;
        }

        function show(status) {
          byId('apps').replaceChildren(...status.apps.map(showApp));
          byId('no-apps').hidden = status.apps.length > 0;
          byId('components').replaceChildren(...status.components.map((one) => {
            const item = element('li', null, one.ready ? 'good' : one.state === 'down' ? 'bad' : 'busy');
            item.append(element('span', one.name));
            item.append(element('span', ' ' + (one.ready ? one.version || '' : one.state), 'quiet'));
            if (one.reason) item.title = one.reason;
            return item;
          }));
          byId('notes').replaceChildren(...status.notes.map((note) => element('li', note)));
          const ready = status.components.filter((one) => one.ready).length;
          byId('summary').textContent = ready + ' of ' + status.components.length + ' components ready on ' + status.host;
        }

        async function refresh() {
          pending = null;
          try {
            show(await ask('/v1/status'));
            byId('board').hidden = false;
            byId('login').hidden = true;
            byId('logout').hidden = false;
          } catch (failure) {
            if (failure.status === 401) { leave(); } else { byId('summary').textContent = failure.message; soon(3000); }
          }
        }

        function soon(milliseconds) {
          if (pending === null) pending = setTimeout(refresh, milliseconds);
        }

        function addEvent(event) {
          const row = document.createElement('tr');
          row.append(
            element('td', event.sequence ? Number(event.sequence) : ''), element('td', event.time ? new Date(event.time).toLocaleTimeString() : ''),
            element('td', event.type), element('td', event.subject || ''), element('td', event.actor || ''));
          const list = byId('events');
          list.prepend(row);
          while (list.children.length > kept) list.lastElementChild.remove();
        }

        // Events carry their type as their name, so the stream is read by hand: one place for all of them.
        async function follow() {
          let last = null;
          const mine = {};
          stream = mine;
          const recent = await ask('/v1/events?limit=50').catch(() => []);
          if (stream !== mine) return;
          for (const event of recent) { addEvent(event); last = Number(event.sequence); }
          while (stream === mine) {
            try {
              const headers = last === null ? {} : { 'Last-Event-ID': String(last) };
              const response = await fetch('/v1/events?follow=1', { credentials: 'same-origin', headers });
              if (response.status === 401) { leave(); return; }
              if (!response.ok) throw new Error('the answer was ' + response.status);
              byId('live').textContent = 'live';
              const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
              let text = '';
              for (;;) {
                const { value, done } = await reader.read();
                if (done || stream !== mine) break;
                text += value;
                const parts = text.split('\\n\\n');
                text = parts.pop();
                for (const part of parts) {
                  const data = part.split('\\n').filter((line) => line.startsWith('data: ')).map((line) => line.slice(6)).join('\\n');
                  if (!data) continue;
                  const event = JSON.parse(data);
                  if (event.sequence) last = Number(event.sequence);
                  addEvent(event);
                  soon(300);
                }
              }
            } catch (failure) {
              byId('live').textContent = 'reconnecting';
            }
            await new Promise((resolve) => setTimeout(resolve, 1000));
          }
        }

        function leave() {
          stream = null;
          byId('board').hidden = true;
          byId('logout').hidden = true;
          byId('login').hidden = false;
          byId('events').replaceChildren();
          byId('summary').textContent = 'log in to see what runs here';
          byId('token').focus();
        }

        byId('login').addEventListener('submit', async (submitted) => {
          submitted.preventDefault();
          byId('refusal').textContent = '';
          try {
            await ask('/login', {
              method: 'POST', headers: { 'Content-Type': 'application/json' },
              body: JSON.stringify({ token: byId('token').value.trim() }),
            });
            byId('token').value = '';
            await refresh();
            follow();
          } catch (failure) {
            byId('refusal').textContent = failure.message;
          }
        });

        byId('logout').addEventListener('click', async () => {
          await ask('/logout', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{}' }).catch(() => {});
          leave();
        });

        (async () => {
          await refresh();
          if (!byId('board').hidden) follow();
          setInterval(() => { if (stream) soon(0); }, 10000);
        })();

        """
}
