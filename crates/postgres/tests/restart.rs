//! A database that goes away and comes back, by way of a relay that is switched off and on.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::{connect, on_postgres, unavailable};
use tidemill_blocks::ledger::Statement;
use tidemill_blocks::queue::{NewMessage, QueueSettings, Receive};
use tidemill_blocks::table::{Condition, Key, Write};
use tidemill_postgres::PostgresSettings;
use tidemill_runtime::{Stopwatch, sleep};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Relays connections to the database until it is dropped, which cuts all of them.
struct Relay {
    at: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Relay {
    async fn start(at: SocketAddr, to: String) -> Self {
        let listener = loop {
            match TcpListener::bind(at).await {
                Ok(listener) => break listener,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        };
        let (at, mut tasks) = (listener.local_addr().unwrap(), JoinSet::new());
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let to = to.clone();
                open.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(to).await {
                        drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                    }
                });
            }
        });
        Self { at, _tasks: tasks }
    }
}

#[test]
fn a_restart_of_the_database_is_survived() {
    on_postgres("a_restart_of_the_database_is_survived", async |h, settings| {
        let (user, rest) = settings.url.rsplit_once('@').unwrap();
        let (place, database) = rest.split_once('/').unwrap();
        let relay = Relay::start(([127, 0, 0, 1], 0).into(), place.to_owned()).await;
        let at = relay.at;
        let through = PostgresSettings { url: format!("{user}@{at}/{database}"), ..settings.clone() };
        let postgres = connect(&through, h.env()).await;
        let (queue, table, ledger) = (postgres.queue(), postgres.table(), postgres.ledger());
        queue.ensure("q", QueueSettings::default()).await.unwrap();
        table.ensure("t").await.unwrap();
        queue.send("q", vec![NewMessage::now("before")]).await.unwrap();

        drop(relay);
        sleep(Duration::from_millis(100)).await;
        let put = |n: u64| vec![Write::put(Key::new("p", ""), n.to_string(), Condition::Any)];
        let insert = || vec![Statement::new("CREATE TABLE IF NOT EXISTS made (x BIGINT)", vec![])];
        assert!(unavailable(&queue.send("q", vec![NewMessage::now("lost")]).await.unwrap_err()));
        assert!(unavailable(&table.transact("t", put(1)).await.unwrap_err()));
        assert!(unavailable(&ledger.transact(insert()).await.unwrap_err()));
        assert!(unavailable(&ledger.query("SELECT 1", vec![]).await.unwrap_err()));

        let _relay = Relay::start(at, place.to_owned()).await;
        let got = queue.receive("q", Receive::up_to(10, Duration::from_secs(60))).await.unwrap();
        assert_eq!(got.iter().map(|d| &d.body[..]).collect::<Vec<_>>(), [b"before"]);
        table.transact("t", put(2)).await.unwrap();
        ledger.transact(insert()).await.unwrap();
        // The listener is back as well: a message of another process is there sooner than by looking once a second.
        let other = connect(&settings, h.env()).await;
        sleep(Duration::from_secs(3)).await;
        let mut waited = Duration::ZERO;
        for _ in 0..4 {
            let wait = queue.receive("q", Receive::up_to(1, Duration::from_secs(60)).waiting(Duration::from_secs(10)));
            let (got, sent) = futures::join!(wait, async {
                sleep(Duration::from_millis(300)).await;
                other.queue().send("q", vec![NewMessage::now("after")]).await.unwrap();
                Stopwatch::start()
            });
            assert_eq!(got.unwrap().len(), 1);
            waited += sent.elapsed();
        }
        assert!(waited < Duration::from_secs(1), "{waited:?} for four messages");
    });
}
