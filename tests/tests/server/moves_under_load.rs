//! Do tenants move between servers while they are written to, and while servers die, and are the books those of one
//! server afterwards (rule 4.8)?

use crate::servers::BOOKS;
use crate::tenant_moves::{copied, copy_messages, exported, load};
use postgres::error::SqlState;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use talkmeter_tests::private::Server;
use talkmeter_tests::{
    Random, Session, assert_same_rows, assert_sound, at_length, attach, create_messages, messages_mapping,
};

const TENANTS: usize = 12;
const SERVERS: usize = 3;
const MOVES: usize = 20;
/// Of all writers together.
const INSERTS_A_SECOND: u64 = 400;
const WRITERS: usize = 2;

const DEFINITIONS: &str = r#"
    SELECT talkmeter.define_plan('{"name": "small", "included": 40, "overage_rate": 0.5, "currency": "USD"}');
    SELECT talkmeter.define_pack('{"name": "ten", "size": 10, "price": 5, "currency": "USD", "valid_for": "never"}')"#;

/// A server with the table `messages`.
fn server() -> Server {
    let server = Server::with(&[]);
    let mut session = server.create("meter");
    session.run(DEFINITIONS);
    create_messages(&mut session);
    attach(&mut session, "messages", "agent_red", Some("small"), &messages_mapping());
    server
}

/// A session that is opened anew whenever its server dies.
struct Lasting<'s> {
    server: &'s Server,
    session: Option<Session>,
}

impl<'s> Lasting<'s> {
    fn of(server: &'s Server) -> Lasting<'s> {
        Lasting { server, session: None }
    }

    /// Does `work`, again from its start if the server dies meanwhile.
    fn until_done<R>(&mut self, mut work: impl FnMut(&mut Session) -> Result<R, postgres::Error>) -> R {
        loop {
            let session = self.session.get_or_insert_with(|| self.server.connect("meter"));
            match work(session) {
                Ok(result) => return result,
                Err(error) if has_died(&error) => self.session = None,
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    fn run(&mut self, sql: &str) {
        self.until_done(|session| session.client.batch_execute(sql));
    }
}

fn has_died(error: &postgres::Error) -> bool {
    const DEAD: [SqlState; 3] = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW];
    error.is_closed() || error.code().is_none_or(|code| DEAD.contains(code))
}

/// What all threads know.
struct World<'s> {
    servers: &'s [Server],
    all: &'s Server,
    /// The server of each tenant. Who writes a message holds it for reading.
    homes: RwLock<Vec<usize>>,
    is_over: AtomicBool,
    written: AtomicU64,
}

fn tenant(number: usize) -> String {
    format!("t{number}")
}

/// Writes messages of its tenants, each later than the one before, on the tenant's server and on the one that has all.
fn write(world: &World, writer: usize, seed: u64) {
    let mut random = Random::new(seed);
    let mut homes: Vec<Lasting> = world.servers.iter().map(Lasting::of).collect();
    let mut all = Lasting::of(world.all);
    let pause = Duration::from_micros(1_000_000 * WRITERS as u64 / INSERTS_A_SECOND);
    let mut next = Instant::now();
    for number in 0_u64.. {
        if world.is_over.load(Ordering::Relaxed) {
            return;
        }
        let of = random.below(TENANTS / WRITERS) * WRITERS + writer;
        let kind = ["customer_message", "ai_reply", "ai_reply", "exchange", "close"][random.below(5)];
        let insert = format!(
            "INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind)
             VALUES ({}, '{}', 'c{}', timestamptz '2026-03-01 00:00+00' + {number} * interval '5 s', '{kind}')
             ON CONFLICT (id) DO NOTHING",
            number * WRITERS as u64 + writer as u64,
            tenant(of),
            number / 200 * 10 + random.below(10) as u64,
        );
        let home = world.homes.read().expect("no panic");
        homes[home[of]].run(&insert);
        drop(home);
        all.run(&insert);
        world.written.fetch_add(1, Ordering::Relaxed);
        next += pause;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// All of a move; a step that a death interrupts is done again.
fn relocate(world: &World, number: usize, to: usize) {
    let name = tenant(number);
    let from = world.homes.read().expect("no panic")[number];
    let (mut old, mut new) = (Lasting::of(&world.servers[from]), Lasting::of(&world.servers[to]));
    new.run(&format!("SELECT talkmeter.expect_tenant('{name}')"));
    old.run(&format!("SELECT talkmeter.begin_move('{name}')"));
    world.homes.write().expect("no panic")[number] = to;
    let rows = old.until_done(|session| copied(session, &messages_of(&name)));
    new.until_done(|session| copy_messages(session, &rows));
    let document = old.until_done(|session| exported(session, &name));
    let receipt: String = new.until_done(|session| {
        load(session, &document)?;
        Ok(session.client.query_one("SELECT talkmeter.import_tenant('document')::text", &[])?.get(0))
    });
    old.run(&format!("SELECT talkmeter.end_move('{name}', '{receipt}')"));
    old.run(&format!("DELETE FROM messages WHERE tenant_id = '{name}'"));
}

/// Kills servers at moments of chance, and starts them again.
fn kill(world: &World, random: &mut Random, times: usize) {
    for _ in 0..times {
        thread::sleep(Duration::from_millis(1_500 + random.below(2_500) as u64));
        let server = &world.servers[random.below(SERVERS)];
        let killed = std::process::Command::new("kill").args(["-9", &server.postmaster()]).status().expect("kill");
        assert!(killed.success());
        server.connect_after_crash("meter");
    }
}

fn messages_of(tenant: &str) -> String {
    format!("COPY (SELECT * FROM messages WHERE tenant_id = '{tenant}') TO STDOUT")
}

#[test]
fn tenants_that_move_under_load_while_servers_are_killed_have_the_books_of_one_server() {
    let (mut random, seed) = Random::seeded();
    println!("TALKMETER_SEED={seed}");
    let servers: Vec<Server> = (0..SERVERS).map(|_| server()).collect();
    let all = server();
    let homes: Vec<usize> = (0..TENANTS).map(|tenant| tenant % SERVERS).collect();
    for (number, home) in homes.iter().enumerate() {
        let buy = format!("SELECT talkmeter.buy_pack('{}', 'ten', purchased_at => '2026-02-28')", tenant(number));
        servers[*home].connect("meter").run(&buy);
        all.connect("meter").run(&buy);
    }
    let world = World {
        servers: &servers,
        all: &all,
        homes: RwLock::new(homes),
        is_over: AtomicBool::new(false),
        written: AtomicU64::new(0),
    };
    let begun = Instant::now();
    let times = if at_length() { 12 } else { 3 };
    let moves = if at_length() { 5 * MOVES } else { MOVES };
    let chosen: Vec<(usize, usize)> =
        (0..moves).map(|_| (random.below(TENANTS), 1 + random.below(SERVERS - 1))).collect();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (world, seed) = (&world, seed + writer as u64);
            scope.spawn(move || write(world, writer, seed));
        }
        let killer = scope.spawn(|| kill(&world, &mut random, times));
        for (tenant, by) in chosen {
            let home = world.homes.read().expect("no panic")[tenant];
            relocate(&world, tenant, (home + by) % SERVERS);
            thread::sleep(Duration::from_millis(300));
        }
        killer.join().expect("no panic");
        world.is_over.store(true, Ordering::Relaxed);
    });
    let (written, seconds) = (world.written.load(Ordering::Relaxed), begun.elapsed().as_secs_f64());
    println!("{written} messages in {seconds:.0} seconds");
    assert_books_are_those_of_one(&servers, &all);
}

fn assert_books_are_those_of_one(servers: &[Server], all: &Server) {
    let mut sessions: Vec<Session> = servers.iter().chain([all]).map(|server| server.connect("meter")).collect();
    for session in &mut sessions {
        session.sweep("2026-10-01");
        assert_eq!(session.lines("SELECT * FROM talkmeter.quarantine"), [""; 0]);
        assert_sound(session);
    }
    let mut one = sessions.pop().expect("the last");
    for (view, columns) in BOOKS {
        let query = format!("SELECT {columns} FROM talkmeter.{view} AS v");
        let mut found: Vec<String> = sessions.iter_mut().flat_map(|session| session.lines(&query)).collect();
        let mut wanted = one.lines(&query);
        found.sort();
        wanted.sort();
        assert!(!wanted.is_empty(), "{view}");
        assert_same_rows(&found, &wanted);
    }
    let tiers = one.lines("SELECT DISTINCT tier FROM talkmeter.charges ORDER BY 1");
    assert_eq!(tiers, ["included", "overage", "pack"]);
}
