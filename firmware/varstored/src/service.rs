//! A request and what is replied to it.

use uefi_raw::Status;
use variables::remote::{Reply, Request};
use variables::{Authenticator, Backend, Error, Variables};

/// Carries out a request; the reply goes to the beginning of `reply`, and its length comes back.
pub fn answer<V: Backend, N: Backend, A: Authenticator>(
    variables: &mut Variables<V, N, A>,
    request: &Request<'_>,
    reply: &mut [u8],
) -> usize {
    // QueryVariableInfo does not tell who asks; the guest's driver has checked what may be asked when.
    variables.set_asker(request.at_runtime().unwrap_or(false));
    let result = match carry_out(variables, request) {
        Ok(result) => result,
        Err(error) => Reply::Status(error.status()),
    };
    // Whatever a store holds fits the window; a reply that did not would be the daemon's own failure.
    result.encode(reply).or_else(|| Reply::Status(Status::DEVICE_ERROR).encode(reply)).unwrap_or(0)
}

fn carry_out<'a, V: Backend, N: Backend, A: Authenticator>(
    variables: &'a mut Variables<V, N, A>,
    request: &Request<'_>,
) -> Result<Reply<'a>, Error> {
    match *request {
        Request::Get { key, room, .. } => {
            let variable = variables.get(key)?;
            let needed = variable.data.len() as u64;
            Ok(match needed <= room {
                true => Reply::Variable { attributes: variable.attributes, data: variable.data },
                false => Reply::TooSmall { needed },
            })
        }
        Request::Set { key, attributes, data, .. } => {
            variables.set(key, attributes, data)?;
            Ok(Reply::Status(Status::SUCCESS))
        }
        Request::Next { key, room, .. } => {
            let next = variables.next(key)?;
            let needed = next.name.len() as u64;
            Ok(match needed <= room {
                // The message has no NUL.
                true => Reply::Next { vendor: next.vendor, name: &next.name[..next.name.len().saturating_sub(2)] },
                false => Reply::TooSmall { needed },
            })
        }
        Request::Query { attributes } => variables.query(attributes).map(Reply::Info),
        Request::Notify => Err(Error::Unsupported),
    }
}

#[cfg(test)]
mod tests;
