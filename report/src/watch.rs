//! How does a page stay new? It is served on loopback, and read again at each visit.

use crate::figures::Figures;
use crate::page;
use crate::psql::Failure;
use tiny_http::{Header, Request, Response, Server};

/// Serves the page that `read` finds until it is stopped; the browser asks again after so many seconds.
pub fn serve(port: u16, seconds: u32, read: impl Fn() -> Result<Figures, Failure>) -> Result<(), Failure> {
    // What is wrong with the names shows at once.
    read()?;
    let server = Server::http(("127.0.0.1", port))
        .map_err(|error| Failure::new(format!("cannot serve on port {port}: {error}")))?;
    let address = server.server_addr().to_ip().expect("it is no socket in a directory");
    println!("http://{address}/  (Ctrl-C ends it)");
    for request in server.incoming_requests() {
        let (status, kind, body) = if is_meant(&request, &address.to_string()) {
            answer(request.url(), seconds, &read)
        } else {
            (403, TEXT, format!("This page is served as http://{address}/ only.\n"))
        };
        let header = Header::from_bytes("Content-Type", kind).expect("a header of ours");
        // A browser that has gone away takes none.
        let _ = request.respond(Response::from_string(body).with_status_code(status).with_header(header));
    }
    Ok(())
}

const TEXT: &str = "text/plain; charset=utf-8";

/// A page of another site that has its own name point here would send that name.
fn is_meant(request: &Request, address: &str) -> bool {
    let port = address.rsplit(':').next().unwrap_or_default();
    let named = request.headers().iter().find(|header| header.field.equiv("Host")).map(|header| header.value.as_str());
    named.is_some_and(|host| host == address || host == format!("localhost:{port}"))
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
