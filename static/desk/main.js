// The desk: one record in front of the reviewer, the next one already here, decisions sent in the background. Here its
// parts are put together: `supply` brings records, `front` shows one, `commands` are what keys and buttons do,
// `decisions` go through `outbox` to the server, and `trouble` says what went wrong.
import { Advance } from "./advance.js";
import { Api } from "./api.js";
import { Banners } from "./banners.js";
import { Commands } from "./commands.js";
import { Decisions, newKey } from "./decisions.js";
import { Dialogs } from "./dialogs.js";
import { Form, loadWidgets } from "./form.js";
import { Front } from "./front.js";
import { recall, remember } from "./memory.js";
import { Notes } from "./notes.js";
import { Order } from "./order.js";
import { Drafts, Outbox } from "./outbox.js";
import { Progress } from "./progress.js";
import { Supply } from "./supply.js";
import { TextPane } from "./textpane.js";
import { Trouble } from "./trouble.js";
import { paint, say } from "./words.js";

function build(root) {
  const config = JSON.parse(root.dataset.config);
  const marks = root.dataset;
  const key = `labeler.${config.reviewer}.${config.project}.${config.task}`;
  // What this page calls itself when it asks for records. A reload goes on under that name. While the page is open it
  // is not in the tab's memory: a duplicated tab begins with a copy of it.
  const name = `${key}.page`;
  const page = recall(name) ?? newKey();
  remember(name, null);

  const api = new Api(config.api, (reachable) => trouble.reached(reachable));
  const drafts = new Drafts(`${key}.drafts`);
  const outbox = new Outbox(api, `${key}.outbox`, {
    beside: (item) => (item.name === "decide" ? supply.beside() : {}),
    changed: () => trouble.showSign(),
    saved: (item, answer) => ({ decide: () => decisions.saved(item, answer), note: () => notes.saved(answer) })[item.name]?.(),
    refused: (item, error) => (item.name === "note" ? notes : trouble).refused(item, error),
    trouble: (error) => trouble.unsent(error),
    clear: () => trouble.sent(),
  });
  const progress = new Progress(root, api, (recordId) => supply.open(recordId));
  const pane = new TextPane(root.querySelector('[data-slot="text"]'));
  const form = new Form(root, {
    pane, language: config.language, onTouch: () => supply.touched(), onHand: (whole) => advance.turn(whole),
    approve: (event, empty) => commands.approve(event, empty),
  });
  const front = new Front(root, { api, form, pane, drafts });
  const dialogs = new Dialogs(root);
  const trouble = new Trouble(root, {
    api, outbox, drafts, signIn: config.signIn, taskVersion: config.taskVersion,
    ask: (item, error) => dialogs.conflict(form, item, error),
    reopen: (recordId, draft) => supply.open(recordId, draft),
    refuse: (words, item) => form.refuse(words, item),
    ping: () => progress.refresh(),
  });
  const supply = new Supply({
    api, outbox, drafts, front, trouble, page, marks,
    order: { order: config.order, similar_to: config.similar, tag: config.tag }, finish: () => front.finish(progress),
  });
  const decisions = new Decisions({ api, outbox, drafts, supply, front, progress, trouble, marks });
  const advance = new Advance(root, { on: config.advance, form, supply, dialogs, decisions });
  const notes = new Notes(root, { api, outbox, dialogs, supply, front, progress, trouble });
  const commands = new Commands(root, { api, supply, front, decisions, dialogs, notes, trouble });
  new Order(root, (order) => supply.reorder({ ...order, tag: config.tag }));

  document.addEventListener("visibilitychange", () => document.hidden || progress.refresh());
  addEventListener("online", () => outbox.retryNow());
  addEventListener("pagehide", () => {
    remember(name, page);
    outbox.flush();
    supply.close();
  });
  addEventListener("beforeunload", (event) => outbox.atRisk && event.preventDefault());
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  root.querySelector("[data-tasks]")?.addEventListener("change", (event) => location.assign(event.target.value));
  fold(root.querySelector("[data-side]"));
  paint(root);
  return { outbox, supply, trouble, record: config.record };
}

// On a narrow screen what stands beside the record is folded away.
function fold(side) {
  const narrow = matchMedia("(max-width: 900px)");
  const set = () => (side.open = !narrow.matches);
  narrow.addEventListener("change", set);
  set();
}

async function start({ outbox, supply, trouble, record }) {
  outbox.resume();
  trouble.showSign();
  // A decision that is on its way is not asked for again.
  if (record && !outbox.ids().includes(record)) await supply.open(record);
  if (!supply.current) await supply.bring();
}

// Scripts of widgets come from plugins, too: one that fails must not look like a desk that has nothing to do.
async function begin(root) {
  try {
    await loadWidgets(root);
    start(build(root));
  } catch (error) {
    const banners = new Banners(root);
    banners.show("failed", say("noForm", { why: error.message }), banners.reloadButton());
    throw error;
  }
}

const root = document.getElementById("desk");
if (root) begin(root);
