//! What tools ask at start, as they send it. psql, SQLAlchemy and ADBC themselves are asked in the outside-in tests; these are the statements
//! of tools that are not installed where tests run.

use crate::support::{plain, texts};

/// DBeaver, the JDBC driver, Metabase, Grafana, Superset, Power BI, pgAdmin.
const STATEMENTS: &[&str] = &[
    "SELECT n.oid,n.*,d.description FROM pg_catalog.pg_namespace n LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=n.oid AND d.objsubid=0 AND d.classoid='pg_namespace'::regclass ORDER BY nspname",
    "SELECT n.nspname = ANY(current_schemas(true)), n.nspname, t.typname FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON t.typnamespace = n.oid WHERE t.oid = 1034",
    "SELECT db.oid,db.* FROM pg_catalog.pg_database db WHERE datname='tidemill'",
    "SELECT t.oid,t.*,c.relkind,format_type(nullif(t.typbasetype, 0), t.typtypmod) as base_type_name, d.description FROM pg_catalog.pg_type t LEFT OUTER JOIN pg_catalog.pg_type et ON et.oid=t.typelem LEFT OUTER JOIN pg_catalog.pg_class c ON c.oid=t.typrelid LEFT OUTER JOIN pg_catalog.pg_description d ON t.oid=d.objoid WHERE t.typname IS NOT NULL AND (c.relkind IS NULL OR c.relkind = 'c') AND (et.typcategory IS NULL OR et.typcategory <> 'C')",
    "SELECT c.oid,c.*,d.description,pg_catalog.pg_get_expr(c.relpartbound, c.oid) as partition_expr, pg_catalog.pg_get_partkeydef(c.oid) as partition_key FROM pg_catalog.pg_class c LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_class'::regclass WHERE c.relnamespace=2200 AND c.relkind not in ('i','I','c')",
    "SELECT c.relname,a.*,pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) as def_value,dsc.description,dep.objid FROM pg_catalog.pg_attribute a INNER JOIN pg_catalog.pg_class c ON (a.attrelid=c.oid) LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid=ad.adrelid AND a.attnum = ad.adnum) LEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid=dsc.objoid AND a.attnum = dsc.objsubid) LEFT OUTER JOIN pg_depend dep on dep.refobjid = a.attrelid AND dep.deptype = 'i' and dep.refobjsubid = a.attnum and dep.classid = dep.refclassid WHERE NOT a.attisdropped AND c.relkind not in ('i','I','c') AND c.oid=16384 ORDER BY a.attnum",
    r#"SELECT nspname AS "TABLE_SCHEM", current_database() AS "TABLE_CATALOG" FROM pg_catalog.pg_namespace  WHERE nspname <> 'pg_toast' AND (nspname !~ '^pg_temp_'  OR nspname = (pg_catalog.current_schemas(true))[1]) AND (nspname !~ '^pg_toast_temp_'  OR nspname = replace((pg_catalog.current_schemas(true))[1], 'pg_temp_', 'pg_toast_temp_'))  ORDER BY "TABLE_SCHEM""#,
    r#"with table_privileges as (select NULL as role, t.schemaname as schema, t.objectname as table, pg_catalog.has_any_column_privilege(current_user, '"' || replace(t.schemaname, '"', '""') || '"' || '.' || '"' || replace(t.objectname, '"', '""') || '"',  'update') as update, pg_catalog.has_table_privilege(current_user, '"' || replace(t.schemaname, '"', '""') || '"', 'delete') as delete from (select schemaname, tablename as objectname from pg_catalog.pg_tables union select schemaname, viewname as objectname from pg_catalog.pg_views union select schemaname, matviewname as objectname from pg_catalog.pg_matviews) t where t.schemaname !~ '^pg_' and t.schemaname <> 'information_schema' and pg_catalog.has_schema_privilege(current_user, t.schemaname, 'usage')) select t.* from table_privileges t"#,
    r#"SELECT "n"."nspname" AS "schema", "c"."relname" AS "name", CASE "c"."relkind" WHEN 'r' THEN 'TABLE' WHEN 'v' THEN 'VIEW' ELSE NULL END AS "type", "d"."description" AS "description", "stat"."n_live_tup" AS "estimated_row_count" FROM "pg_catalog"."pg_class" AS "c" INNER JOIN "pg_catalog"."pg_namespace" AS "n" ON "c"."relnamespace" = "n"."oid" LEFT JOIN "pg_catalog"."pg_description" AS "d" ON ("c"."oid" = "d"."objoid") AND ("d"."objsubid" = '0') AND ("d"."classoid" = 'pg_class'::regclass) LEFT JOIN "pg_stat_user_tables" AS "stat" ON ("n"."nspname" = "stat"."schemaname") AND ("c"."relname" = "stat"."relname") WHERE ("n"."nspname" !~ '^pg_') AND c.relkind in ('r', 'p', 'v', 'f', 'm') AND ("n"."nspname" IN ('batch')) ORDER BY "type" ASC, "schema" ASC, "name" ASC"#,
    "SELECT * FROM (SELECT current_database() AS current_database, n.nspname,c.relname,a.attname,a.atttypid,a.attnotnull OR (t.typtype = 'd' AND t.typnotnull) AS attnotnull,a.atttypmod,a.attlen,t.typtypmod,row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum) AS attnum, nullif(a.attidentity, '') as attidentity,nullif(a.attgenerated, '') as attgenerated,pg_catalog.pg_get_expr(def.adbin, def.adrelid) AS adsrc,dsc.description,t.typbasetype,t.typtype FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON (c.relnamespace = n.oid) JOIN pg_catalog.pg_attribute a ON (a.attrelid=c.oid) JOIN pg_catalog.pg_type t ON (a.atttypid = t.oid) LEFT JOIN pg_catalog.pg_attrdef def ON (a.attrelid=def.adrelid AND a.attnum = def.adnum) LEFT JOIN pg_catalog.pg_description dsc ON (c.oid=dsc.objoid AND a.attnum = dsc.objsubid) LEFT JOIN pg_catalog.pg_class dc ON (dc.oid=dsc.classoid AND dc.relname='pg_class') LEFT JOIN pg_catalog.pg_namespace dn ON (dc.relnamespace=dn.oid AND dn.nspname='pg_catalog') WHERE c.relkind in ('r','p','v','f','m') and a.attnum > 0 AND NOT a.attisdropped AND n.nspname LIKE 'batch' AND c.relname LIKE 'jobs') c WHERE true ORDER BY nspname,c.relname,attnum",
    "SELECT quote_ident(table_name) as table FROM information_schema.tables WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog', '_timescaledb_cache') AND table_type = 'BASE TABLE' AND quote_ident(table_schema) IN ('batch')",
    "SELECT quote_ident(column_name) AS \"column\", data_type AS \"type\" FROM information_schema.columns WHERE CASE WHEN array_length(string_to_array('batch.jobs', '.'), 1) = 2 THEN quote_ident(table_schema) = (string_to_array('batch.jobs', '.'))[1] ELSE true END AND quote_ident(table_name) = 'jobs'",
    "SELECT table_schema, table_name, column_name, ordinal_position, udt_name FROM information_schema.columns WHERE information_schema.columns.table_schema = 'batch' ORDER BY 1, 2, 4",
    "SELECT tc.constraint_name, kcu.column_name FROM information_schema.table_constraints tc JOIN information_schema.key_column_usage kcu ON tc.constraint_name = kcu.constraint_name WHERE tc.constraint_type = 'PRIMARY KEY'",
    "SELECT set_config('bytea_output','hex',false) FROM pg_catalog.pg_settings WHERE name = 'bytea_output'",
    "SELECT roles.oid as id, roles.rolname as name, roles.rolsuper as is_superuser, roles.rolcreaterole FROM pg_catalog.pg_roles as roles WHERE rolname = current_user",
    "SELECT string_agg(word, ',') from pg_catalog.pg_get_keywords() where word <> ALL ('{a,abs,absolute}'::text[])",
    "SELECT pg_catalog.pg_is_in_recovery(), current_setting('server_version_num'), pg_backend_pid() > 0",
    "SELECT c.relname FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'S', 'v', 'm', 'f', 'p') AND (c.relname) LIKE 'jo%' AND pg_catalog.pg_table_is_visible(c.oid) AND c.relnamespace <> (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'pg_catalog') UNION ALL SELECT NULL::pg_catalog.text LIMIT 1000",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_statements_of_tools_are_understood() {
    let running = plain().await;
    let client = running.client().await;
    for sql in STATEMENTS {
        client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}\n{:?}", e.as_db_error()));
        client.query(*sql, &[]).await.unwrap_or_else(|e| panic!("in the extended protocol: {sql}\n{e:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_and_columns_are_there_with_their_types() {
    let running = plain().await;
    let client = running.client().await;
    let sql = "SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_class c \
               JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid \
               WHERE c.oid = 'jobs'::regclass ORDER BY a.attnum";
    let expected = [("id", "text"), ("n", "bigint"), ("d", "double precision"), ("ok", "boolean"), ("at", "timestamp with time zone")]
        .map(|(name, kind)| ["batch", "jobs", name, kind].map(|s| Some(s.to_owned())).to_vec());
    assert_eq!(texts(&client, sql).await, expected);
    let sql = "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'batch' AND table_name = 'jobs' ORDER BY ordinal_position";
    assert_eq!(texts(&client, sql).await.len(), 5);
    let visible = texts(&client, "SELECT oid::regclass::text FROM pg_class WHERE pg_table_is_visible(oid) ORDER BY 1").await;
    assert_eq!(visible, [["jobs"], ["tasks"], ["workers"]].map(|r| r.map(|s| Some(s.to_owned())).to_vec()));
    // The other table of that name is found by its schema, and a table of another schema without it.
    assert_eq!(
        texts(&client, "SELECT count(*) FROM grid.tasks, workers WHERE tasks.n = 1 AND workers.n = 1").await,
        [[Some("1".to_owned())]]
    );
    // What WITH names goes before what the catalog does.
    let own = texts(&client, "WITH pg_class AS (SELECT 7 AS oid), jobs AS (SELECT 8 AS n) SELECT oid, n FROM pg_class, jobs").await;
    assert_eq!(own, [[Some("7".to_owned()), Some("8".to_owned())]]);
    let own =
        texts(&client, "WITH pg_index AS (SELECT 7 AS n) SELECT (SELECT max(n) FROM pg_index), n FROM (SELECT n FROM pg_index) AS x").await;
    assert_eq!(own, [[Some("7".to_owned()), Some("7".to_owned())]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_have_the_names_that_postgresql_gives_them() {
    let running = plain().await;
    let client = running.client().await;
    let statement = client
        .prepare("SELECT 1, 2, count(*), max(n) AS m, sum(d), now(), CAST(1 AS TEXT), CASE WHEN true THEN 1 END FROM jobs")
        .await
        .unwrap();
    let names: Vec<&str> = statement.columns().iter().map(tokio_postgres::Column::name).collect();
    assert_eq!(names, ["?column?", "?column?", "count", "m", "sum", "now", "text", "case"]);
    // Names that are given do not get into the way of what is ordered and grouped by.
    for sql in [
        "SELECT DISTINCT lower(id) FROM jobs ORDER BY lower(id) LIMIT 1",
        "SELECT ok, count(*) FROM jobs GROUP BY ok ORDER BY count(*) DESC, ok",
        "SELECT CAST(n AS TEXT) FROM jobs GROUP BY n ORDER BY n LIMIT 2",
        "SELECT upper(id) FROM jobs WHERE n = 1 UNION SELECT 'x' ORDER BY 1",
        "SELECT date_trunc('hour', at), sum(n) FROM jobs GROUP BY 1 ORDER BY 1",
        "SELECT n % 10, count(*) FROM jobs GROUP BY n % 10 HAVING count(*) > 1 ORDER BY n % 10",
    ] {
        assert!(!texts(&client, sql).await.is_empty(), "{sql}");
    }
}
