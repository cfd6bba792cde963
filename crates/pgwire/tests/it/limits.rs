//! Time, number, and the end: of statements, sessions, and the server.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tidemill_pgwire::Settings;
use tidemill_query::EngineSettings;
use tidemill_runtime::{Stopwatch, sleep};
use tokio_postgres::NoTls;

use crate::support::{FOREVER, PATIENT, plain, said, soon, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_is_cancelled_ends_at_once_and_the_session_goes_on() {
    let running = plain().await;
    let client = running.client().await;
    let token = client.cancel_token();
    let clock = Stopwatch::start();
    let cancel = async {
        sleep(Duration::from_millis(300)).await;
        token.cancel_query(NoTls).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(soon("the cancelled statement", client.batch_execute(FOREVER)), cancel);
    assert_eq!(said(&outcome.unwrap_err()), ("57014".to_owned(), "canceling statement due to user request".to_owned()));
    assert!(clock.elapsed() < Duration::from_secs(5), "{:?}", clock.elapsed());
    client.batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_may_want_less_time_than_the_server_gives_and_not_more() {
    let running = start(Settings::default(), EngineSettings { timeout: Duration::from_millis(900), ..EngineSettings::default() }).await;
    let client = running.client().await;
    for (set, said_limit) in
        [("SET statement_timeout = '200ms'", "200ms"), ("SET statement_timeout = '1h'", "900ms"), ("SET statement_timeout = 0", "900ms")]
    {
        client.batch_execute(set).await.unwrap();
        let e = soon("the statement that is too slow", client.batch_execute(FOREVER)).await.unwrap_err();
        let (state, message) = said(&e);
        assert_eq!(state, "57014");
        assert!(message.contains(said_limit), "{set}: {message}");
    }
    let mut config = running.config();
    config.options("-c statement_timeout=150ms");
    let hasty = running.client_of(&config).await.unwrap();
    let e = soon("the hasty session", hasty.batch_execute(FOREVER)).await.unwrap_err();
    assert!(said(&e).1.contains("150ms"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_takes_its_statement_along() {
    let engine = EngineSettings { concurrency: 1, ..EngineSettings::default() };
    let running = start(Settings::default(), engine).await;
    let (client, connection) = running.config().connect(NoTls).await.unwrap();
    {
        let mut connection = std::pin::pin!(connection);
        let mut statement = std::pin::pin!(client.batch_execute(PATIENT));
        tokio::select! {
            _ = &mut connection => panic!("the connection ended"),
            _ = &mut statement => panic!("the statement ended"),
            () = sleep(Duration::from_millis(300)) => {}
        }
    }
    drop(client);
    // The one place is free again long before the statement's minute is over.
    let next = running.client().await;
    soon("the next statement", next.batch_execute("SELECT 1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_cursor_gives_back_its_threads_in_time() {
    let engine = EngineSettings { concurrency: 1, timeout: Duration::from_millis(800), ..EngineSettings::default() };
    let running = start(Settings::default(), engine).await;
    let mut client = running.client().await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT a.n FROM jobs a, jobs b", &[]).await.unwrap();
    assert_eq!(transaction.query_portal(&portal, 5).await.unwrap().len(), 5);
    sleep(Duration::from_millis(1_200)).await;
    let other = running.client().await;
    soon("a statement of somebody else", other.batch_execute("SELECT 1")).await.unwrap();
    let e = transaction.query_portal(&portal, 5).await.unwrap_err();
    assert_eq!(said(&e).0, "57014");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_too_late_is_told_and_ten_at_once_are_served() {
    let running = start(Settings { max_connections: 10, ..Settings::default() }, EngineSettings::default()).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(running.client().await);
    }
    let sums = clients.iter().enumerate().map(|(i, c)| {
        let sql = format!("SELECT CAST(sum(n) AS BIGINT) FROM jobs WHERE n < {}", i + 2);
        async move { c.query_one(sql.as_str(), &[]).await.unwrap().get::<_, i64>(0) }
    });
    let found = futures::future::join_all(sums).await;
    let expected: Vec<i64> = (2..12).map(|n| n * (n - 1) / 2).collect();
    assert_eq!(found, expected);
    let e = running.client_of(&running.config()).await.unwrap_err();
    assert_eq!(said(&e).0, "53300");
    drop(clients.pop());
    // The place is free once the session has ended.
    soon("a free place", async {
        while running.client_of(&running.config()).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_session_is_ended_and_so_is_one_whose_token_was_revoked() {
    let running = start(Settings { idle_timeout: Duration::from_millis(300), ..Settings::default() }, EngineSettings::default()).await;
    let client = running.client().await;
    sleep(Duration::from_millis(700)).await;
    assert!(client.is_closed() || client.batch_execute("SELECT 1").await.is_err());
    let client = running.client().await;
    client.batch_execute("SELECT 1").await.unwrap();
    running.revoked.store(true, Ordering::SeqCst);
    assert_eq!(said(&client.batch_execute("SELECT 1").await.unwrap_err()).0, "28000");
    soon("the end of the session", async {
        while !client.is_closed() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_refused() {
    let running = plain().await;
    let mut config = running.config();
    config.password("wrong");
    let e = running.client_of(&config).await.unwrap_err();
    assert_eq!(said(&e), ("28P01".to_owned(), "the token is not valid".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_ends_sessions_with_a_word_and_draining_does_not() {
    let running = plain().await;
    let (idle, busy) = (running.client().await, running.client().await);
    running.tasks.shutdown().drain();
    idle.batch_execute("SELECT 1").await.unwrap();
    let close = async {
        sleep(Duration::from_millis(200)).await;
        running.tasks.shutdown().close();
    };
    let (outcome, ()) = tokio::join!(soon("the statement at the end", busy.batch_execute(FOREVER)), close);
    assert_eq!(said(&outcome.unwrap_err()).0, "57P01");
    let clock = Stopwatch::start();
    running.tasks.join(Duration::from_secs(10)).await;
    assert!(clock.elapsed() < Duration::from_secs(5), "{:?}", clock.elapsed());
    assert!(idle.is_closed());
}
