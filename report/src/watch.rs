//! How does a page stay new? It is served on loopback, and read again at each visit.

use crate::figures::Figures;
use crate::page;
use crate::psql::Failure;
use std::net::SocketAddr;
use std::thread;
use tiny_http::{Header, Method, Request, Response, Server};

/// Serves the page that `read` finds until it is stopped; the browser asks again after so many seconds.
pub fn serve(port: u16, seconds: u32, read: impl Fn() -> Result<Figures, Failure> + Sync) -> Result<(), Failure> {
    // What is wrong with the names shows at once.
    read()?;
    let server = Server::http(("127.0.0.1", port))
        .map_err(|error| Failure::new(format!("cannot serve on port {port}: {error}")))?;
    let address = server.server_addr().to_ip().expect("it is no socket in a directory");
    println!("http://{address}/  (Ctrl-C ends it)");
    let read = &read;
    thread::scope(|scope| {
        for request in server.incoming_requests() {
            // Who takes an answer slowly keeps nobody else waiting.
            scope.spawn(move || respond(request, address, seconds, read));
        }
    });
    Ok(())
}

fn respond(request: Request, address: SocketAddr, seconds: u32, read: impl Fn() -> Result<Figures, Failure>) {
    let (status, kind, body) = if !is_meant(&request, address.port()) {
        (403, TEXT, format!("This page is served as http://{address}/ only.\n"))
    } else if !matches!(request.method(), Method::Get | Method::Head) {
        (405, TEXT, "This page can only be read.\n".to_owned())
    } else {
        answer(request.url(), seconds, read)
    };
    let header = Header::from_bytes("Content-Type", kind).expect("a header of ours");
    // A browser that has gone away takes none.
    let _ = request.respond(Response::from_string(body).with_status_code(status).with_header(header));
}

const TEXT: &str = "text/plain; charset=utf-8";

/// A page of another site that has its own name point here would send that name.
fn is_meant(request: &Request, port: u16) -> bool {
    let named = request.headers().iter().find(|header| header.field.equiv("Host")).map(|header| header.value.as_str());
    let meant = |name: &str| {
        let host = named.unwrap_or_default();
        host.eq_ignore_ascii_case(&format!("{name}:{port}")) || port == 80 && host.eq_ignore_ascii_case(name)
    };
    meant("127.0.0.1") || meant("localhost")
}

fn answer(url: &str, seconds: u32, read: impl Fn() -> Result<Figures, Failure>) -> (u16, &'static str, String) {
    if url != "/" {
        return (404, TEXT, "There is one page here: /\n".to_owned());
    }
    match read().and_then(|figures| page::render(&figures, Some(seconds))) {
        Ok(page) => (200, "text/html; charset=utf-8", page),
        Err(failure) => (503, TEXT, format!("{failure}\n")),
    }
}
