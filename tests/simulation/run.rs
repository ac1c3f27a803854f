//! One run: a seed in, what happened and what is wrong out.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use onedrivefs::clock::Clock;
use onedrivefs::disk::Disk;
use onedrivefs::emulator::{EmulatorConfig, Flavour, Mark};
use onedrivefs::engine::{EngineConfig, UploadSizes, Waiting};
use onedrivefs::model::NodeId;
use onedrivefs::store::{ParkKind, RemoteView};

use super::dice::Dice;
use super::disk;
use super::driver::Driver;
use super::ops::{self, Op, Weather};
use super::oracle::{Hash, Oracle, Remote, hash};
use super::sync_support::{Service, Setup};
use super::wire::{SimClock, Tokens, Trace, Wire};

/// Operations of a run.
const OPS: usize = 160;
/// Rounds of sending and looking after which a run that does not come to rest is wrong.
const ROUNDS: usize = 20;

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub ops: u64,
    pub requests: u64,
    pub lost: u64,
    pub crashes: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.ops += other.ops;
        self.requests += other.requests;
        self.lost += other.lost;
        self.crashes += other.crashes;
    }
}

pub struct Outcome {
    pub trace: Vec<String>,
    /// What is wrong; the kind before the colon.
    pub wrong: Vec<String>,
    pub counts: Counts,
}

impl Outcome {
    /// The kinds of what is wrong.
    pub fn kind(&self) -> Option<&str> {
        self.wrong.first().map(|line| line.split(':').next().unwrap_or_default())
    }
}

/// What the seed decides besides the list.
struct Choices {
    flavour: Flavour,
    page_size: usize,
    power: bool,
    /// Nobody else changes anything after the beginning.
    alone: bool,
    poll: Duration,
    /// How contents are cut into requests.
    sizes: UploadSizes,
}

impl Choices {
    fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0xF1A7);
        Self {
            flavour: dice.pick(&[Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary]),
            page_size: dice.pick(&[2, 5, 200]),
            power: dice.chance(250),
            alone: dice.chance(200),
            poll: Duration::from_secs(dice.pick(&[5, 30, 300])),
            // Most contents of such a run go in sessions, of up to some dozen fragments.
            sizes: if dice.chance(500) { UploadSizes { put: 300, unit: 16 } } else { UploadSizes::default() },
        }
    }
}

/// The list of a seed.
pub fn list(seed: u64) -> Vec<Op> {
    let choices = Choices::of(seed);
    ops::generate(seed, OPS, choices.power, choices.alone)
}

/// Runs a list under a seed, on this thread.
pub fn run(seed: u64, list: &[Op]) -> Outcome {
    let work = std::panic::AssertUnwindSafe(|| World::new(seed).play(list));
    std::panic::catch_unwind(work).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let wrong = vec![format!("panic: {}", text.unwrap_or_default())];
        Outcome { trace: Vec::new(), wrong, counts: Counts::default() }
    })
}

struct World {
    choices: Choices,
    clock: Arc<SimClock>,
    trace: Trace,
    tokens: Arc<Tokens>,
    oracle: Oracle,
    service: Option<(Service, Arc<Wire>)>,
    seed: u64,
    /// Boots of the machine.
    boots: u64,
    /// Names of temporary files.
    counter: u64,
    counts: Counts,
    wrong: Vec<String>,
}

/// How the life of a machine ended.
enum End {
    /// At this operation, with the disk as it was.
    Crashed {
        next: usize,
        disk: tempfile::TempDir,
    },
    Rest,
}

impl World {
    fn new(seed: u64) -> Self {
        let clock = Arc::new(SimClock::new(seed));
        Self {
            choices: Choices::of(seed),
            trace: Trace::new(Arc::clone(&clock)),
            clock,
            tokens: Arc::default(),
            oracle: Oracle::new(Choices::of(seed).alone),
            service: None,
            seed,
            boots: 0,
            counter: 0,
            counts: Counts::default(),
            wrong: Vec::new(),
        }
    }

    fn play(mut self, list: &[Op]) -> Outcome {
        let mut at = 0;
        loop {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .expect("a runtime");
            let end = runtime.block_on(self.live(list, at));
            drop(runtime);
            match end {
                End::Crashed { next, disk } => {
                    self.counts.crashes += 1;
                    at = next;
                    if let Some((service, _)) = &mut self.service {
                        service.move_to(disk);
                    }
                }
                End::Rest => break,
            }
        }
        if let Some((_, wire)) = &self.service {
            (self.counts.requests, self.counts.lost) = wire.counts();
        }
        self.counts.ops = list.len() as u64;
        for line in &self.wrong {
            self.trace.note(format_args!("WRONG {line}"));
        }
        Outcome { trace: self.trace.take(), wrong: self.wrong, counts: self.counts }
    }

    fn begin(&mut self) -> (Service, Arc<Wire>) {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let config = EmulatorConfig {
            flavour: self.choices.flavour,
            clock: Arc::clone(&clock),
            page_size: self.choices.page_size,
            fragment_unit: self.choices.sizes.unit,
            data_dir: Path::new("/dev/shm").is_dir().then(|| "/dev/shm".into()),
            ..EmulatorConfig::default()
        };
        let service = Service::of(config, clock, disk::directory());
        let wire = Arc::new(Wire::new(service.emulator().clone(), self.trace.clone(), self.seed));
        (service, wire)
    }

    /// From a start to a crash or the end.
    async fn live(&mut self, list: &[Op], from: usize) -> End {
        self.clock.start();
        let (service, wire) = match self.service.take() {
            Some(there) => there,
            None => self.begin(),
        };
        let (poll, sizes) = (self.choices.poll, self.choices.sizes);
        let power = self.choices.power.then(|| Arc::new(disk::Power::default()));
        self.trace.note("# start");
        let machine = service.machine_of(|setup: &mut Setup| {
            setup.engine = EngineConfig { host: "box".into(), poll, sizes, ..EngineConfig::default() };
            setup.cache.block = 4096;
            setup.staging.min_free_bytes = 0;
            setup.staging.boot = format!("boot {}", self.boots);
            setup.disk = match power.clone() {
                Some(power) => Disk::with_hook(power),
                None => Disk::new(),
            };
            setup.transport = wire.clone();
            setup.tokens = self.tokens.clone();
        });
        let machine = machine.await;
        let mut driver =
            Driver::new(&machine, &service.control, &wire, &self.trace, &mut self.oracle, &mut self.counter);
        let mut end = None;
        let mut dies_at = None;
        for (index, op) in list.iter().enumerate().skip(from) {
            if let Op::Crash { after_ms, .. } = op {
                let at = tokio::time::Instant::now() + Duration::from_millis(u64::from(*after_ms));
                dies_at = Some((at, index));
            }
            let doing = driver.perform(op);
            let died = match dies_at {
                Some((at, _)) => tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(at) => true,
                    () = doing => false,
                },
                None => {
                    doing.await;
                    false
                }
            };
            if let (true, Some((_, crash))) = (died, dies_at) {
                let seed = match &list[crash] {
                    Op::Crash { power, .. } => *power,
                    _ => None,
                };
                let image = match (seed, &power) {
                    (Some(seed), Some(power)) => {
                        self.trace.note("# power cut");
                        driver.loses_power();
                        self.boots += 1;
                        power.cut(service.dir(), seed)
                    }
                    _ => {
                        self.trace.note("# crash");
                        driver.dies();
                        disk::image(service.dir())
                    }
                };
                let disk = image.expect("an image of the disk");
                end = Some(End::Crashed { next: index + 1, disk });
                break;
            }
        }
        let end = match end {
            Some(end) => end,
            None => {
                let wrong = settle(&mut driver, &service).await;
                driver.wrong.extend(wrong);
                End::Rest
            }
        };
        self.wrong.append(&mut driver.wrong);
        drop(driver);
        self.clock.stop();
        self.service = Some((service, wire));
        end
    }
}

/// Everything is well again; after some time nothing may be left to do, and both sides must agree.
async fn settle(driver: &mut Driver<'_>, service: &Service) -> Vec<String> {
    driver.trace.note("# calm");
    driver.wire.set_weather(Weather::Calm);
    let control = driver.control;
    control.clear_faults();
    control.set_delta_lag(Duration::ZERO);
    control.release_stalls();
    control.set_quota(ops::ROOM);
    for path in Remote::of(&control.truth()).tree.keys() {
        control.mark(path, Mark::Lock(None)).expect("it is there");
    }
    driver.close_all().await;
    let mut differs = vec!["rest: nothing was tried".to_owned()];
    for round in 0..ROUNDS {
        if round == 3 {
            // An upload session of which nobody knows holds its name until the service drops it.
            control.expire_sessions();
        }
        differs = rest(driver, service).await;
        if differs.is_empty() {
            break;
        }
    }
    let remote = Remote::of(&control.truth());
    let content = |path: &str| control.content(path).map(|bytes| bytes.to_vec());
    differs.extend(driver.oracle.judge(&remote, content));
    if differs.is_empty() && !driver.oracle.power_was_cut {
        differs.extend(stays_at_rest(driver).await);
    }
    if !differs.is_empty() {
        show_unsent(driver);
    }
    differs
}

/// The rows of what is unsent go to the trace.
fn show_unsent(driver: &Driver<'_>) {
    let view = |view: &Option<RemoteView>| {
        view.as_ref().map(|view| (view.item.to_string(), view.parent.map(|id| id.0), view.name.clone()))
    };
    for node in driver.machine.engine.store().dirty().unwrap_or_default() {
        let local = node.local.as_ref().map(|local| {
            (local.parent.0, &local.name, local.deleted, local.content, local.seal.is_some(), local.retry_at)
        });
        let (id, kind, remote, base) = (node.id.0, node.kind, view(&node.remote), view(&node.base));
        driver.trace.note(format_args!(
            "unsent {id} {kind:?} {:?}: remote {remote:?} base {base:?} local {local:?}",
            node.place.as_ref().map(|place| (place.parent.0, &place.name))
        ));
    }
}

/// Sends all, looks, and compares.
async fn rest(driver: &mut Driver<'_>, service: &Service) -> Vec<String> {
    let engine = &driver.machine.engine;
    if let Err(error) = engine.retry_parked(NodeId::ROOT).await {
        return vec![format!("rest: parked changes cannot be tried again: {error}")];
    }
    let limit = Duration::from_secs(1800);
    let left = engine.sync(NodeId::ROOT, Some(limit), |_| {}).await;
    let looked = tokio::time::timeout(limit, driver.machine.look()).await;
    if looked.is_err() {
        return vec!["rest: no look at the drive ends".into()];
    }
    match left {
        Ok(left) if left.pending == 0 => {}
        other => {
            let waiting = engine.status().await.map(|status| status.waiting).unwrap_or_default();
            if stays_here(&waiting) {
                keeps(driver).await;
                driver.oracle.power_was_cut = true;
                return Vec::new();
            }
            return vec![format!("rest: not everything was sent: {other:?} {waiting:?}")];
        }
    }
    let remote = Remote::of(&service.control.truth());
    match local_tree(driver, &remote.tree).await {
        Ok(local) => compare(&local, &remote.tree, driver.oracle),
        Err(error) => vec![format!("tree: cannot be read: {error}")],
    }
}

/// Whether nothing can be sent any more: the rest of a file that was changed in part was replaced elsewhere, so that it
/// is kept here, and said to be. What waits for it waits with it.
fn stays_here(waiting: &[Waiting]) -> bool {
    let has_no_base = |waiting: &Waiting| waiting.reason == Some(ParkKind::BaseGone);
    let without = |path: &String| waiting.iter().any(|other| has_no_base(other) && other.path == *path);
    let stays = |waiting: &Waiting| has_no_base(waiting) || waiting.behind.as_ref().is_some_and(without);
    !waiting.is_empty() && waiting.iter().all(stays)
}

/// What is unsent is here: its bytes where they can be read, and where a part is missing, the rest.
async fn keeps(driver: &mut Driver<'_>) {
    for node in driver.machine.engine.store().dirty().unwrap_or_default() {
        if node.local.as_ref().is_none_or(|local| local.content.is_none()) {
            continue;
        }
        let path = driver.machine.engine.store().path_of(node.id).unwrap_or_default();
        match driver.read_file(&path).await {
            Ok(bytes) => driver.oracle.kept_bytes(&bytes),
            Err(_) => driver.oracle.kept_node(node.id),
        }
    }
}

type Tree = BTreeMap<String, Option<Hash>>;

async fn local_tree(driver: &mut Driver<'_>, remote: &Tree) -> Result<Tree, String> {
    let mut tree = Tree::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let names = driver.list(&folder).await.map_err(|error| format!("{folder}: {error}"))?;
        for name in names {
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            if path == "lost+found" && !remote.contains_key(&path) {
                continue;
            }
            if driver.is_folder(&path).await.map_err(|error| format!("{path}: {error}"))? {
                folders.push(path.clone());
                tree.insert(path, None);
            } else {
                let bytes = driver.read_file(&path).await.map_err(|error| format!("{path}: {error}"))?;
                tree.insert(path, Some(hash(&bytes)));
            }
        }
    }
    Ok(tree)
}

fn compare(local: &Tree, remote: &Tree, oracle: &Oracle) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, theirs) in remote {
        match local.get(path) {
            None => wrong.push(format!("tree: {path} is on the service only")),
            Some(ours) if ours.is_some() != theirs.is_some() => {
                wrong.push(format!("tree: {path} is a file on one side and a folder on the other"));
            }
            Some(Some(ours))
                if theirs.as_ref().is_some_and(|theirs| !oracle.may_be_taken_for(ours, theirs)) =>
            {
                wrong.push(format!("tree: {path} has other bytes on the service"));
            }
            Some(_) => {}
        }
    }
    let only_here = local.keys().filter(|path| !remote.contains_key(*path));
    wrong.extend(only_here.map(|path| format!("tree: {path} is here only")));
    wrong
}

/// With nothing to do, nothing is sent but looks. A look that is under way may still read items that it has in doubt,
/// once.
async fn stays_at_rest(driver: &Driver<'_>) -> Vec<String> {
    driver.trace.note("# rest");
    // What was on its way before all was well again arrives and is answered: also the end of an upload session that nobody
    // needs any more.
    tokio::time::sleep(Duration::from_millis(ops::SLOWEST_MS.into()) * 4).await;
    let ((early, _), late) = (rests(driver).await, rests(driver).await);
    let (changes, reads) = (early + late.0, late.1);
    let mut wrong = Vec::new();
    if changes > 0 {
        wrong.push(format!("repeats: {changes} changes were sent with nothing to do"));
    } else if reads > 0 {
        wrong.push(format!("repeats: {reads} reads with nothing to do"));
    }
    wrong
}

/// Changes that are sent in some minutes, and reads other than looks at the whole drive.
async fn rests(driver: &Driver<'_>) -> (usize, usize) {
    driver.control.reset_log();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let requests = driver.control.requests();
    let changes = requests.iter().filter(|record| record.method != "GET").count();
    // The push channel, which the wire does not offer, is asked for now and then.
    let reads = requests.iter().filter(|record| record.op != "delta" && record.op != "socketIo").count();
    (changes, reads)
}
