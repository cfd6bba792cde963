//! The SQL listener, if there is to be one: PostgreSQL's protocol over the same engine, users and certificate.

#[cfg(feature = "pg-wire")]
mod open {
    use std::net::IpAddr;
    use std::sync::Arc;

    use async_trait::async_trait;
    use tidemill_base::{Error, Result};
    use tidemill_pgwire::{Endpoint, Gate, Pass, Settings};
    use tidemill_query::Engine;
    use tidemill_runtime::{Kind, Tasks};
    use tokio::net::TcpListener;

    use crate::AppState;
    use crate::auth::{Auth, Principal, Role};
    use crate::config::{ServerConfig, parse_address};
    use crate::limits::RateLimit;
    use crate::listen::{self, Identity, check_exposure};

    pub(in crate::assembly) async fn bind(config: &ServerConfig, tls: bool) -> Result<Option<TcpListener>> {
        if config.server.sql_listen.is_empty() {
            return Ok(None);
        }
        let address = parse_address("server.sql-listen", &config.server.sql_listen)?;
        check_exposure(address, tls, config.server.insecure)?;
        listen::bind(address).await.map(Some)
    }

    pub(in crate::assembly) fn serve(state: &AppState, listener: TcpListener, identity: Option<&Identity>, tasks: &Tasks) -> Result<()> {
        let address = listener.local_addr()?;
        let config = &state.config;
        let settings = Settings {
            max_connections: usize::try_from(config.sql.max_connections).unwrap_or(usize::MAX),
            idle_timeout: config.sql.idle_timeout.0,
            handshake_timeout: config.limits.header_timeout.0,
            tls: identity.map(|i| Arc::clone(&i.config)),
            insecure: config.server.insecure,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let door = Door { auth: state.auth.clone(), rate: state.rate.clone() };
        let endpoint = Endpoint::new(state.service::<Arc<Engine>>()?, Arc::new(door), state.env.clone(), settings);
        let inner = tasks.clone();
        tasks.spawn("sql", Kind::Essential, async move { tidemill_pgwire::serve(listener, endpoint, &inner).await });
        tracing::info!(%address, tls = identity.is_some(), "SQL endpoint ready");
        Ok(())
    }

    /// Tokens as passwords, with the same rates and roles as over HTTP.
    struct Door {
        auth: Auth,
        rate: RateLimit,
    }

    #[async_trait]
    impl Gate for Door {
        async fn admit(&self, _user: &str, password: &str, from: IpAddr) -> Result<Box<dyn Pass>> {
            allowed(&self.rate, &from.to_string())?;
            let principal = self.auth.authenticate(password.trim()).await?;
            principal.require(Role::Viewer)?;
            Ok(Box::new(Holder { auth: self.auth.clone(), rate: self.rate.clone(), token: Token(password.trim().to_owned()), principal }))
        }
    }

    /// The text of a token, which does not print.
    struct Token(String);

    impl std::fmt::Debug for Token {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Token")
        }
    }

    #[derive(Debug)]
    struct Holder {
        auth: Auth,
        rate: RateLimit,
        token: Token,
        principal: Principal,
    }

    #[async_trait]
    impl Pass for Holder {
        fn user(&self) -> &str {
            &self.principal.user
        }

        /// A session outlives its token's end and its revocation no more than a request does.
        async fn check(&self) -> Result<()> {
            allowed(&self.rate, &self.principal.token_id)?;
            self.auth.authenticate(&self.token.0).await?.require(Role::Viewer)
        }
    }

    fn allowed(rate: &RateLimit, caller: &str) -> Result<()> {
        if rate.allows(caller) {
            return Ok(());
        }
        Err(Error::exhausted("too many statements or sign-ins a second; slow down, or raise `limits.requests-per-second`"))
    }
}

#[cfg(not(feature = "pg-wire"))]
mod open {
    use tidemill_base::{Error, Result};
    use tidemill_runtime::Tasks;
    use tokio::net::TcpListener;

    use crate::AppState;
    use crate::config::ServerConfig;
    use crate::listen::Identity;

    pub(in crate::assembly) async fn bind(config: &ServerConfig, _tls: bool) -> Result<Option<TcpListener>> {
        if config.server.sql_listen.is_empty() {
            return Ok(None);
        }
        Err(Error::invalid(
            "server.sql-listen is set and this program was built without PostgreSQL's protocol; build it with the feature `pg-wire`, or leave \
             it out and ask over HTTP with `tidemill sql`",
        ))
    }

    pub(in crate::assembly) fn serve(_: &AppState, _: TcpListener, _: Option<&Identity>, _: &Tasks) -> Result<()> {
        Err(Error::internal("there is no SQL listener in this program"))
    }
}

pub(super) use open::{bind, serve};
