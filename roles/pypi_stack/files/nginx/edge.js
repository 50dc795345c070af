/* The login at the edge: nginx asks `check` (auth_request) before it looks at any page, file or upload, unless `door`, which
 * costs a fraction of it, knows the credential from a moment ago.
 *
 * A verdict is kept for REMEMBER_MS in memory that the workers share. Its key is an HMAC of the credential, under a random key
 * that nobody sees and the identity of the users' files: an edited file makes every older verdict unreachable, SEAL_MS later at
 * most. Passwords are verified by the login service, never in a worker. See docs/decisions/0001-login-at-the-edge.md. */
import hashes from 'crypto';
import fs from 'fs';

const REMEMBER_MS = 300000;
const REMEMBER_WRONG_MS = 10000;
const SEAL_MS = 100;
const USERS = ['/users/htpasswd', '/users/roles.json'];
const READS = ['GET', 'HEAD'];
const BASIC = /^basic +[A-Za-z0-9+\/]+=* *$/i;

function secret() {
    const found = ngx.shared.verdicts.get('secret');
    if (found) {
        return found;
    }
    const fresh = Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('hex');
    return ngx.shared.verdicts.add('secret', fresh, 365 * 86400000) ? fresh : ngx.shared.verdicts.get('secret');
}

function identity() {
    return USERS.map(function (path) {
        const file = fs.statSync(path);
        return [file.ino, file.mtimeMs, file.size].join('.');
    }).join(' ');
}

/* What verdicts are bound to. Looking at the files costs as much as everything else, so it is done ten times a second at most. */
function seal() {
    const current = ngx.shared.verdicts.get('seal');
    if (current) {
        return current;
    }
    const fresh = secret() + ' ' + identity();
    ngx.shared.verdicts.set('seal', fresh, SEAL_MS);
    return fresh;
}

function keyOf(credential) {
    return hashes.createHmac('sha256', seal()).update(credential).digest('base64');
}

/* $door, a directory: `known` has the index in it, `unknown` does not exist, and nginx goes on to ask `check`. It says who may
 * read; whatever is not a read asks `check` in any case. */
function door(r) {
    const credential = r.headersIn.Authorization;
    if (!credential) {
        return r.variables.login_anonymous_read == '1' ? 'known' : 'unknown';
    }
    const verdict = ngx.shared.verdicts.get(keyOf(credential));
    if (!verdict) {
        return 'unknown';
    }
    r.variables.login_user = verdict.split(' ')[0];
    return 'known';
}

/* The answers of auth_request can only be 2xx, 401 and 403; `refuse` turns a 403 into what it stands for. */
function forbid(r, status, reason) {
    r.variables.login_status = status;
    r.variables.login_reason = reason;
    r.return(403);
}

function admit(r, verdict) {
    const user = verdict.split(' ');
    r.variables.login_user = user[0];
    if (!READS.includes(r.variables.request_method) && user[1] != 'publisher') {
        forbid(r, 403, `${user[0]} may download but not upload: ask for the role "publisher".`);
        return;
    }
    r.return(204);
}

function check(r) {
    const header = r.headersIn.Authorization;
    if (!header) {
        if (r.variables.login_anonymous_read == '1' && READS.includes(r.variables.request_method)) {
            r.return(204);
            return;
        }
        r.return(401);
        return;
    }
    let key;
    try {
        key = keyOf(header);
    } catch (error) {
        r.error(`login: ${error.message}`);
        forbid(r, 503, 'The users of this index cannot be read.');
        return;
    }
    const verdict = ngx.shared.verdicts.get(key);
    if (verdict === undefined) {
        verify(r, header, key).catch(function (error) {
            r.error(`login: ${error.message}`);
            forbid(r, 503, 'The login service does not answer.');
        });
        return;
    }
    verdict ? admit(r, verdict) : r.return(401);
}

async function verify(r, header, key) {
    // What is malformed may not fit into a header again. The login service refuses its key instead, and takes its time.
    const credential = BASIC.test(header) ? header : key;
    const reply = await ngx.fetch(r.variables.login_url, {
        headers: {Authorization: credential, 'X-Real-IP': r.remoteAddress},
    });
    switch (reply.status) {
    case 204: {
        const verdict = reply.headers.get('X-Login-User') + ' ' + reply.headers.get('X-Login-Role');
        ngx.shared.verdicts.set(key, verdict, REMEMBER_MS);
        admit(r, verdict);
        break;
    }
    case 401:
        ngx.shared.verdicts.set(key, '', REMEMBER_WRONG_MS);
        r.return(401);
        break;
    case 429:
        forbid(r, 429, 'Too many wrong passwords, or too many logins at once. Try again in a minute.');
        break;
    default:
        forbid(r, 503, 'The login service cannot answer.');
    }
}

function refuse(r) {
    const status = Number(r.variables.login_status) || 403;
    if (status != 403) {
        r.headersOut['Retry-After'] = status == 429 ? '60' : '5';
    }
    r.headersOut['Content-Type'] = 'text/plain; charset=utf-8';
    r.return(status, `${r.variables.login_reason || 'Forbidden.'}\n`);
}

/* No page under that address: another spelling of a name is sent to the right one (PEP 503), the rest does not exist. */
function missing(r) {
    const wanted = r.uri.match(/^(?:\/index)?\/simple\/([A-Za-z0-9._-]+)(\/(?:index\.(?:html|json))?)?$/);
    if (wanted) {
        const normal = wanted[1].replace(/[-_.]+/g, '-').toLowerCase();
        if (normal != wanted[1] || !wanted[2]) {
            r.return(301, `/simple/${normal}/`);
            return;
        }
    }
    r.headersOut['Content-Type'] = 'text/plain; charset=utf-8';
    r.return(404, 'Not on this index.\n');
}

export default {check, door, missing, refuse};
