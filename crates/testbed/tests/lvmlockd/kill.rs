//! lvmlockd is killed at random moments and started again: every lock is given back to its host, or
//! released, and none is ever given to two hosts.
//!
//! `TESTBED_KILLS=200 cargo test -p testbed --test lvmlockd kill -- --nocapture` kills it 200 times
//! with each release of lvm2; `TESTBED_SEED` selects other moments.

use super::{Pair, for_every_release};
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use testbed::{Client, EAGAIN, Host, Lv, Lvm2, Mode, lease, wait_until};

for_every_release!(every_lock_is_given_back_or_released);

const KILLS: u64 = 5;
const LEASE: Duration = Duration::from_secs(6);
/// Time, beside a lease, within which orphans that nothing uses are released: the duration of a
/// request, and two looks.
const RELEASED: Duration = Duration::from_secs(5);
const LVS: usize = 6;
/// Clients that work on alice at the same time, each with LVs of its own.
const CLIENTS: usize = 3;

/// Core's answer to an unlock of an unknown lock.
const ENOENT: i32 = -2;
/// Core's answer if a client that has just disconnected still holds the lock.
const EEXIST: i32 = -17;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.below(most * 1000))
    }

    fn mode(&mut self) -> Mode {
        if self.one_in(2) { Mode::Ex } else { Mode::Sh }
    }
}

/// The active LVs, each with its host and mode: the use that the locks protect.
#[derive(Default)]
struct World {
    active: Mutex<HashMap<(&'static str, usize), Mode>>,
    version: AtomicU32,
    /// Number of times that alice was granted the VG's lock exclusively.
    alice_wrote: AtomicU32,
    grants: AtomicU32,
    refusals: AtomicU32,
}

impl World {
    fn mode(&self, host: &'static str, lv: usize) -> Option<Mode> {
        self.active.lock().unwrap().get(&(host, lv)).copied()
    }

    /// Records that a host was granted an LV's lock and activates it.
    fn activate(&self, host: &'static str, lv: usize, mode: Mode) -> Result<()> {
        let mut active = self.active.lock().unwrap();
        for other in ["alice", "bob"].into_iter().filter(|&other| other != host) {
            if let Some(theirs) = active.get(&(other, lv)) {
                let shared = *theirs == Mode::Sh && mode == Mode::Sh;
                ensure!(shared, "LV {lv}: {host} got it {mode:?}, {other} has it {theirs:?}");
            }
        }
        active.insert((host, lv), mode);
        self.grants.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn weaken(&self, host: &'static str, lv: usize) {
        self.active.lock().unwrap().insert((host, lv), Mode::Sh);
    }

    fn deactivate(&self, host: &'static str, lv: usize) {
        self.active.lock().unwrap().remove(&(host, lv));
    }
}

/// A host in the test.
#[derive(Clone, Copy)]
struct Actor<'a> {
    host: &'a Host,
    name: &'static str,
    world: &'a World,
    lvs: &'a [Lv],
}

impl Actor<'_> {
    /// Does one of the actions of lvm commands. Returns `Ok(false)` where lvmlockd died.
    fn act(&self, client: &mut Client, lv: usize, random: &mut Random) -> Result<bool> {
        let (name, world) = (self.name, self.world);
        match world.mode(name, lv) {
            None if random.one_in(4) => {
                // A command that takes the lock for itself and is interrupted. Not in shared mode:
                // core frees the PV paths of the second of two such commands twice, without calling
                // the library.
                let Ok(mut other) = self.host.client() else { return Ok(false) };
                if other.send_lock_lv(&self.lvs[lv], Mode::Ex).is_err() {
                    return Ok(false);
                }
                thread::sleep(random.millis(6));
            }
            None => {
                let mode = random.mode();
                match self.ask(client, lv, mode, &[0, EAGAIN, EEXIST])? {
                    None => return Ok(false),
                    Some(0) => {
                        world.activate(name, lv, mode)?;
                        self.host.set_active(&self.lvs[lv], true)?;
                    }
                    Some(_) => drop(world.refusals.fetch_add(1, Ordering::Relaxed)),
                }
            }
            Some(Mode::Ex) if random.one_in(3) => {
                // It counts from the time of the request.
                world.weaken(name, lv);
                if self.ask(client, lv, Mode::Sh, &[0])?.is_none() {
                    return Ok(false);
                }
            }
            Some(Mode::Sh) if random.one_in(3) => {
                match self.ask(client, lv, Mode::Ex, &[0, EAGAIN])? {
                    None => return Ok(false),
                    Some(0) => world.activate(name, lv, Mode::Ex)?,
                    Some(_) => {}
                }
            }
            Some(_) => {
                self.deactivate(lv)?;
                if self.ask(client, lv, Mode::Un, &[0, ENOENT])?.is_none() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn deactivate(&self, lv: usize) -> Result<()> {
        self.host.set_active(&self.lvs[lv], false)?;
        self.world.deactivate(self.name, lv);
        Ok(())
    }

    /// The answer, which must be one of the expected ones; `None` where lvmlockd died.
    fn ask(
        &self,
        client: &mut Client,
        lv: usize,
        mode: Mode,
        expected: &[i32],
    ) -> Result<Option<i32>> {
        match client.lock_lv_for_good(&self.lvs[lv], mode) {
            Err(_) => Ok(None),
            Ok(result) if expected.contains(&result) => Ok(Some(result)),
            Ok(result) => bail!("{}: LV {lv} {mode:?}: {result}", self.name),
        }
    }

    /// As [`Actor::ask`], for an lvmlockd that must be alive.
    fn demand(&self, client: &mut Client, lv: usize, mode: Mode, expected: &[i32]) -> Result<i32> {
        self.ask(client, lv, mode, expected)?
            .with_context(|| format!("{}'s lvmlockd died", self.name))
    }

    /// Takes the VG's lock to make a change. Returns `false` where lvmlockd died.
    fn write(&self, client: &mut Client) -> Result<bool> {
        let granted = match client.lock_vg("vg", Mode::Ex) {
            Err(_) => return Ok(false),
            Ok(result) => result,
        };
        ensure!([0, EAGAIN].contains(&granted), "{}: VG: {granted}", self.name);
        if granted == 0 {
            if self.name == "alice" {
                self.world.alice_wrote.fetch_add(1, Ordering::Relaxed);
            }
            let version = self.world.version.fetch_add(1, Ordering::Relaxed) + 1;
            let told = client.update_vg("vg", version);
            if told.is_err() || client.lock_vg("vg", Mode::Un).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn setting(name: &str, otherwise: u64) -> Result<u64> {
    match env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(otherwise),
    }
}

fn every_lock_is_given_back_or_released(lvm2: Lvm2) -> Result<()> {
    let kills = setting("TESTBED_KILLS", KILLS)?;
    let seed = setting("TESTBED_SEED", 1)?;
    let Pair { testbed, mut alice, bob, lv } = Pair::new(lvm2, lease(LEASE))?;
    let pvs = testbed.pvs();
    let mut lvs = vec![lv];
    for number in 1..LVS {
        let name = format!("lv{number}");
        alice.lvm(&["lvcreate", "-an", "-Zn", "-i3", "-L12m", "-n", &name, "vg"])?.success()?;
        lvs.push(alice.find_lv("vg", &name, &pvs)?);
    }
    let world = World::default();
    // Greater than all versions that lvm's own commands have published.
    world.version.store(1000, Ordering::Relaxed);
    let mut random = Random(seed);
    let begin = Instant::now();
    let mut given_back = 0;
    for round in 0..kills {
        for drive in 0..testbed.drives().count() {
            testbed.drives().delay(drive, Duration::from_millis(random.below(4)))?;
        }
        let round_of = |what: &str| format!("seed {seed}, kill {round}: {what}");
        let kept = one_kill(&mut alice, &bob, &world, &lvs, &mut random)
            .with_context(|| round_of("failed"))?;
        given_back += kept;
        for host in [&alice, &bob] {
            ensure!(!host.log().contains("gets no new locks"), round_of("a VG was killed"));
        }
    }
    let number = |count: &AtomicU32| count.load(Ordering::Relaxed);
    println!(
        "{}: {kills} kills in {:.0?}: {} locks granted, {} refused, {given_back} given back",
        lvm2.release,
        begin.elapsed(),
        number(&world.grants),
        number(&world.refusals)
    );
    Ok(())
}

/// One life of alice's lvmlockd, its end, and the next one. Returns the number of locks that alice
/// got back.
fn one_kill(
    alice: &mut Host,
    bob: &Host,
    world: &World,
    lvs: &[Lv],
    random: &mut Random,
) -> Result<usize> {
    let other = Actor { host: bob, name: "bob", world, lvs };
    // The value is either never changed any more, or changed by alice.
    let quiet = random.one_in(2);
    let mut client = bob.client()?;
    ensure!(other.write(&mut client)?, "bob's lvmlockd died");
    let invalidations = bob.invalidations("vg");
    let wrote = world.alice_wrote.load(Ordering::Relaxed);
    let ended = AtomicBool::new(false);

    let seeds: Vec<u64> = (0..=CLIENTS).map(|_| random.next()).collect();
    let kill_after = Duration::from_millis(5) + random.millis(150);
    thread::scope(|scope| -> Result<()> {
        let actor = Actor { host: &*alice, name: "alice", world, lvs };
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let mut random = Random(seeds[number]);
                scope.spawn(move || -> Result<()> {
                    // lvmlockd may be dead already.
                    let Ok(mut client) = actor.host.client() else { return Ok(()) };
                    loop {
                        let lv = number + CLIENTS * random.below((LVS / CLIENTS) as u64) as usize;
                        let writes = number == 0 && !quiet && random.one_in(3);
                        let lives = if writes {
                            actor.write(&mut client)?
                        } else {
                            actor.act(&mut client, lv, &mut random)?
                        };
                        if !lives {
                            return Ok(());
                        }
                    }
                })
            })
            .collect();
        let ended = &ended;
        let theirs = scope.spawn(move || -> Result<()> {
            let mut random = Random(seeds[CLIENTS]);
            let mut client = other.host.client()?;
            while !ended.load(Ordering::Relaxed) {
                let lv = random.below(LVS as u64) as usize;
                ensure!(other.act(&mut client, lv, &mut random)?, "bob's lvmlockd died");
            }
            Ok(())
        });
        thread::sleep(kill_after);
        let killed = actor.host.signal_lvmlockd_to_die();
        for client in clients {
            client.join().expect("no panic")?;
        }
        ended.store(true, Ordering::Relaxed);
        theirs.join().expect("no panic")?;
        killed
    })?;
    alice.kill_lvmlockd()?;
    thread::sleep(random.millis(600));
    alice.start_lvmlockd()?;

    let actor = Actor { host: &*alice, name: "alice", world, lvs };
    let left: Vec<usize> = (0..LVS).filter(|&lv| world.mode("alice", lv).is_some()).collect();
    if random.one_in(4) {
        released_to_others(&other, &left)?;
    }
    if quiet {
        // The other host's value has survived.
        let granted = client.lock_vg("vg", Mode::Sh)?;
        ensure!(granted == 0, "nobody has the VG's lock: {granted}");
        ensure!(bob.invalidations("vg") == invalidations, "a value was lost");
        client.lock_vg("vg", Mode::Un)?;
    }
    let now = random.one_in(3);
    let given_back = given_back(&actor, &left, now, random)?;
    let mut own = alice.client()?;
    ensure!(own.lock_vg("vg", Mode::Ex)? == 0, "alice's own lock is in its way");
    ensure!(own.lock_vg("vg", Mode::Un)? == 0);
    if world.alice_wrote.load(Ordering::Relaxed) > wrote {
        let granted = client.lock_vg("vg", Mode::Sh)?;
        ensure!(granted == 0, "nobody has the VG's lock: {granted}");
        ensure!(bob.invalidations("vg") > invalidations, "what alice wrote was not noticed");
        client.lock_vg("vg", Mode::Un)?;
    }
    Ok(given_back)
}

/// The VG of the dead lvmlockd is not started again: other hosts get the unused locks, and not
/// those in use.
fn released_to_others(bob: &Actor, left: &[usize]) -> Result<()> {
    let mut client = bob.host.client()?;
    for lv in 0..LVS {
        if left.contains(&lv) {
            if bob.world.mode("bob", lv).is_none() {
                bob.demand(&mut client, lv, Mode::Ex, &[EAGAIN])?;
            }
            continue;
        }
        if bob.world.mode("bob", lv) == Some(Mode::Ex) {
            continue;
        }
        wait_until(lease(LEASE) + RELEASED, &format!("LV {lv} to be released"), || {
            Ok((bob.demand(&mut client, lv, Mode::Ex, &[0, EAGAIN])? == 0).then_some(()))
        })?;
        if bob.world.mode("bob", lv).is_some() {
            bob.deactivate(lv)?;
        }
        bob.demand(&mut client, lv, Mode::Un, &[0])?;
    }
    Ok(())
}

/// alice's lvmlockd gets back the locks that it needs, and none of its own records prevents this.
/// Returns the number of locks that it got back.
fn given_back(alice: &Actor, left: &[usize], at_once: bool, random: &mut Random) -> Result<usize> {
    if at_once {
        // LVs are deactivated before the VG is started again: core has nothing to unlock.
        for &lv in left {
            let mut client = alice.host.client()?;
            alice.host.set_active(&alice.lvs[lv], false)?;
            alice.demand(&mut client, lv, Mode::Un, &[ENOENT, ENOLS])?;
        }
    }
    alice.host.lvm(&["vgchange", "--lockstart", "vg"])?.success()?;
    let mut client = alice.host.client()?;
    let mut given_back = 0;
    for lv in 0..LVS {
        match alice.world.mode("alice", lv) {
            Some(mode) => {
                let shared = at_once || random.one_in(4);
                let mode = if shared { Mode::Sh } else { mode };
                if shared {
                    alice.world.weaken("alice", lv);
                }
                alice.demand(&mut client, lv, mode, &[0])?;
                alice.host.set_active(&alice.lvs[lv], true)?;
                given_back += 1;
            }
            None => {
                let mode = random.mode();
                if alice.demand(&mut client, lv, mode, &[0, EAGAIN])? == 0 {
                    alice.demand(&mut client, lv, Mode::Un, &[0])?;
                } else {
                    let theirs = alice.world.mode("bob", lv);
                    ensure!(theirs.is_some(), "LV {lv} is refused, and nobody has it");
                }
            }
        }
    }
    Ok(given_back)
}

/// Core's answer if the VG is not started.
const ENOLS: i32 = -210;
