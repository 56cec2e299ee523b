// Answers requests: fetch events of StarlingMonkey.
addEventListener('fetch', (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const url = new URL(request.url);
  const body = await request.text();
  const works = Date.now() > 1e12 && Math.random() !== Math.random();
  return new Response(`javascript ${request.method} ${url.pathname} ${body.length} ${works}\n`);
}
