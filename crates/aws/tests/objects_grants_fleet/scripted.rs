//! A small stand-in for Auto Scaling that answers what it is told to: for what moto does not do, which is hooks, throttling and
//! failures.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Answers a request's form (`Action=...&...`) with a status and the inside of the result.
type Script = Box<dyn FnMut(&str) -> (u16, String) + Send>;

/// Where it listens, and what it was asked.
pub(crate) struct Scripted {
    pub(crate) endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
    /// Ends the server with this value.
    _server: tokio::task::JoinSet<()>,
}

impl Scripted {
    pub(crate) async fn start(script: impl FnMut(&str) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (asked, mut script): (Arc<Mutex<Vec<String>>>, Script) = (Arc::default(), Box::new(script));
        let notes = Arc::clone(&asked);
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, &notes, &mut script).await;
            }
        });
        Self { endpoint, asked, _server: server }
    }

    /// How often this action was asked for.
    pub(crate) fn count(&self, action: &str) -> usize {
        let wanted = format!("Action={action}&");
        self.asked.lock().unwrap().iter().filter(|form| form.starts_with(&wanted)).count()
    }

    /// The last form of this action.
    pub(crate) fn last(&self, action: &str) -> String {
        let wanted = format!("Action={action}&");
        self.asked.lock().unwrap().iter().rfind(|form| form.starts_with(&wanted)).cloned().unwrap_or_default()
    }
}

/// One request a connection.
async fn serve(mut stream: TcpStream, notes: &Mutex<Vec<String>>, script: &mut Script) {
    let mut bytes = Vec::new();
    let form = loop {
        let mut chunk = [0; 4096];
        let Ok(n @ 1..) = stream.read(&mut chunk).await else { return };
        bytes.extend_from_slice(&chunk[..n]);
        if let Some(form) = whole(&String::from_utf8_lossy(&bytes)) {
            break form;
        }
    };
    let (status, inside) = script(&form);
    let action = form.trim_start_matches("Action=").split('&').next().unwrap_or_default();
    let body = match status {
        200 => format!(
            "<{action}Response xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><{action}Result>{inside}</{action}Result>\
             <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></{action}Response>"
        ),
        _ => format!("<ErrorResponse><Error><Type>Sender</Type>{inside}</Error><RequestId>r</RequestId></ErrorResponse>"),
    };
    notes.lock().unwrap().push(form);
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: text/xml\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    drop(stream.write_all(format!("{head}{body}").as_bytes()).await);
}

/// The body, when all of it is there.
fn whole(request: &str) -> Option<String> {
    let (head, body) = request.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok())?;
    (body.len() >= length).then(|| body.to_owned())
}
