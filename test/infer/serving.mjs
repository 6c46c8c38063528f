// An engine over ranks: rank 0 asks, the others serve it. See test/expert/rank.mjs.
const dist = (file) => import(new URL(`../../dist/${file}`, import.meta.url));

/** Ids of the answers to all requests, asked at once, twice over where `again` is set, and what the engine has counted. */
export async function answers(t, { folder, engine: options, ranks, requests, again }) {
  const { openOnRanks } = await dist('infer/open-ranks.js');
  const { engine, ended } = await openOnRanks(t, folder, options, ranks);
  if (!engine) {
    await ended;
    return undefined;
  }
  const ask = async (request) => {
    const ids = [];
    for await (const event of engine.generate(request)) if (event.type === 'text') ids.push(...event.ids);
    return ids;
  };
  const ids = await Promise.all(requests.map(ask));
  const more = again ? await Promise.all(requests.map(ask)) : undefined;
  const stats = await engine.stats();
  const paging = await engine.paging();
  await engine.close();
  return { ids, more, stats, paging, info: engine.info.ranks, weightBytes: engine.info.weightBytes };
}

/** A request that is wrong, one that is cancelled, and one after them. */
export async function trouble(t, { folder, engine: options, ranks, requests }) {
  const { openOnRanks } = await dist('infer/open-ranks.js');
  const { engine, ended } = await openOnRanks(t, folder, options, ranks);
  if (!engine) return ended;
  const said = [];
  // One for each rank at least.
  for (let i = 0; i < t.placement.size; i++) {
    const failure = await engine
      .generate({ prompt: 'The', maxTokens: -1 })
      [Symbol.asyncIterator]()
      .next()
      .catch((error) => error);
    said.push(`${failure.name}: ${failure.message}`);
    const controller = new AbortController();
    let reason;
    for await (const event of engine.generate({ ...requests[0], maxTokens: 400 }, controller.signal)) {
      controller.abort();
      reason = event.reason ?? reason;
    }
    said.push(reason);
  }
  // Grammars have a thread on each rank, which takes its time to start and to end.
  const json = { prompt: 'T', maxTokens: 8, responseFormat: { type: 'json_object' }, temperature: 0 };
  for await (const event of engine.generate(json)) if (event.type === 'text') said.push(event.text[0]);
  const other = engine.generate(json);
  for await (const event of engine.generate(json)) if (event.type === 'done') said.push(event.reason);
  for await (const event of other) if (event.type === 'done') said.push(event.reason);
  let tokens = 0;
  for await (const event of engine.generate(requests[0])) tokens += event.ids?.length ?? 0;
  await engine.close();
  return { said, tokens };
}
