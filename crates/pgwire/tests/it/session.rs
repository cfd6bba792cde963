//! What a session offers, through a driver that asks for binary values and describes before it binds.

use tokio_postgres::types::Type;

use crate::support::{ROWS, plain, said, texts};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_come_in_both_formats_with_nulls() {
    let running = plain().await;
    let client = running.client().await;
    let sql = "SELECT id, n, d, ok, CAST(d AS REAL) AS f, CAST(n AS INT) AS i, CAST(n AS SMALLINT) AS s, NULL AS nothing FROM jobs \
               WHERE n IN (4, 5) ORDER BY n";
    let rows = client.query(sql, &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, Option<&str>>("id"), None);
    assert_eq!((rows[1].get::<_, &str>("id"), rows[1].get::<_, i64>("n"), rows[1].get::<_, f64>("d")), ("j5", 5, 1.25));
    assert_eq!((rows[1].get::<_, bool>("ok"), rows[1].get::<_, f32>("f")), (false, 1.25));
    assert_eq!((rows[1].get::<_, i32>("i"), rows[1].get::<_, i16>("s")), (5, 5));
    let text =
        texts(&client, "SELECT at, CAST(at AS DATE), CAST(1.50 AS DECIMAL(10, 2)), [1, NULL], d, id, ok FROM jobs WHERE n = 4").await;
    let expected = ["2026-01-01 00:00:04+00", "2026-01-01", "1.50", "{1,NULL}", "1"].map(|s| Some(s.to_owned()));
    assert_eq!(text[0][..5], expected);
    assert_eq!(text[0][5..], [None, Some("t".to_owned())]);
    let lists = client.query_one("SELECT ['a', NULL, 'b c'] AS words, arrow_cast('hi', 'Binary') AS bytes", &[]).await.unwrap();
    assert_eq!(lists.get::<_, Vec<Option<&str>>>("words"), [Some("a"), None, Some("b c")]);
    assert_eq!(lists.get::<_, &[u8]>("bytes"), b"hi");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_have_the_types_of_where_they_stand() {
    let running = plain().await;
    let client = running.client().await;
    let statement = client.prepare("SELECT n FROM jobs WHERE id = $1 AND d < $2 AND n = ANY($3::int8[]) LIMIT $4").await.unwrap();
    assert_eq!(statement.params(), [Type::TEXT, Type::FLOAT8, Type::INT8_ARRAY, Type::INT8]);
    let rows = client.query(&statement, &[&"j7", &100.0_f64, &vec![6_i64, 7], &10_i64]).await.unwrap();
    assert_eq!(rows.iter().map(|r| r.get::<_, i64>(0)).collect::<Vec<_>>(), [7]);
    // Whatever is in a value, it is one value.
    let odd = "x'; DROP TABLE jobs; --\\\"";
    let row = client.query_one("SELECT $1::text || '!' AS v, $2::bool AS b", &[&odd, &None::<bool>]).await.unwrap();
    assert_eq!((row.get::<_, String>("v"), row.get::<_, Option<bool>>("b")), (format!("{odd}!"), None));
    let typed = client.prepare_typed("SELECT $1 + 1 AS v", &[Type::INT4]).await.unwrap();
    assert_eq!(client.query_one(&typed, &[&-5_i32]).await.unwrap().get::<_, i64>("v"), -4);
    let e = client.query("SELECT $2::int", &[&1_i32]).await.unwrap_err();
    assert!(e.to_string().contains("2") || e.as_db_error().is_some(), "{e}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_portal_gives_rows_in_portions_and_a_cursor_too() {
    let running = plain().await;
    let mut client = running.client().await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT n FROM jobs WHERE n < 1000 ORDER BY n", &[]).await.unwrap();
    let mut seen: Vec<i64> = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 300).await.unwrap();
        if rows.is_empty() {
            break;
        }
        assert!(rows.len() <= 300);
        seen.extend(rows.iter().map(|r| r.get::<_, i64>(0)));
    }
    assert_eq!(seen, (0..1_000).collect::<Vec<_>>());
    transaction.batch_execute("DECLARE c NO SCROLL CURSOR FOR SELECT n FROM jobs ORDER BY n").await.unwrap();
    for (fetch, expected) in [("FETCH FORWARD 2 FROM c", vec!["0", "1"]), ("FETCH NEXT FROM c", vec!["2"])] {
        let rows = transaction.simple_query(fetch).await.unwrap();
        let found: Vec<String> = rows
            .iter()
            .filter_map(|m| if let tokio_postgres::SimpleQueryMessage::Row(r) = m { r.get(0).map(str::to_owned) } else { None })
            .collect();
        assert_eq!(found, expected, "{fetch}");
    }
    transaction.batch_execute("MOVE 10 FROM c; CLOSE c").await.unwrap();
    let e = transaction.batch_execute("FETCH 1 FROM c").await.unwrap_err();
    assert_eq!(said(&e).0, "34000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_error_a_transaction_waits_for_its_end() {
    let running = plain().await;
    let client = running.client().await;
    client.batch_execute("BEGIN").await.unwrap();
    assert_eq!(said(&client.batch_execute("SELECT nothing FROM jobs").await.unwrap_err()).0, "42703");
    assert_eq!(said(&client.batch_execute("SELECT 1").await.unwrap_err()).0, "25P02");
    client.batch_execute("ROLLBACK").await.unwrap();
    client.batch_execute("SELECT 1").await.unwrap();
    client.batch_execute("BEGIN; SAVEPOINT a").await.unwrap();
    client.batch_execute("SELECT nothing FROM jobs").await.unwrap_err();
    client.batch_execute("ROLLBACK TO a; SELECT 1; COMMIT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_tools_send_first_is_taken() {
    let running = plain().await;
    let client = running.client().await;
    for sql in [
        "SET extra_float_digits = 3",
        "SET application_name = 'BI; tool'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET client_encoding TO 'UTF8'; SET DateStyle = ISO",
        "set no_such_setting = 1",
        "SHOW search_path",
        "SHOW ALL",
        "SHOW TABLES",
        "DISCARD ALL",
        "DEALLOCATE ALL",
        "BEGIN READ ONLY; COMMIT; COMMIT",
        "",
        " ; ; -- nothing",
    ] {
        client.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }
    assert_eq!(texts(&client, "SHOW search_path").await, [[Some("batch, fleet, grid".to_owned())]]);
    assert_eq!(texts(&client, "SELECT current_schema(), current_user").await, [["batch", "tidemill"].map(|s| Some(s.to_owned()))]);
    let version = texts(&client, "SELECT version()").await[0][0].clone().unwrap();
    assert!(version.starts_with("PostgreSQL 15.0 (Tidemill"), "{version}");
    assert_eq!(texts(&client, "SELECT 1; SELECT 'a;b'; SHOW server_encoding").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_gives_all_rows() {
    use futures::StreamExt as _;
    let running = plain().await;
    let client = running.client().await;
    let read = async |sql: &str| {
        let mut stream = std::pin::pin!(client.copy_out(sql).await.unwrap());
        let mut all = Vec::new();
        while let Some(part) = stream.next().await {
            all.extend_from_slice(&part.unwrap());
        }
        all
    };
    let csv = String::from_utf8(
        read("COPY (SELECT n, id, 'a,\"b\"' AS t FROM jobs WHERE n > 2 ORDER BY n LIMIT 2) TO STDOUT (FORMAT csv, HEADER)").await,
    );
    assert_eq!(csv.unwrap(), "n,id,t\n3,j3,\"a,\"\"b\"\"\"\n4,,\"a,\"\"b\"\"\"\n");
    let text = String::from_utf8(read("COPY batch.jobs (n, id) TO STDOUT").await).unwrap();
    assert_eq!(text.lines().count(), ROWS);
    assert_eq!(text.lines().nth(4), Some("4\t\\N"));
    let binary = read("COPY (SELECT n FROM jobs WHERE n = 7) TO STDOUT (FORMAT binary)").await;
    let expected = [&b"PGCOPY\n\xff\r\n\0"[..], &[0; 8], &[0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7, 255, 255]].concat();
    assert_eq!(binary, expected);
    let none = read("COPY (SELECT n FROM jobs WHERE n < 0) TO STDOUT (FORMAT binary)").await;
    assert_eq!(none, [&b"PGCOPY\n\xff\r\n\0"[..], &[0; 8], &[255, 255]].concat());
}
