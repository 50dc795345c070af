/* The login at the edge: nginx asks `check` (auth_request) before it looks at any page, file or upload, unless the door knows the
 * credential from a moment ago. Passwords are verified by the login service, never in a worker. */
import fs from 'fs';
import door from 'door.js';

const USERS = ['/users/htpasswd', '/users/roles.json'];
const READS = ['GET', 'HEAD'];
const UPLOADS = /^\/(?:(?:legacy|simple|pypi|upload)\/?)?$/; // what tutorials have as an index's address, and our own
const BASIC = /^basic +([A-Za-z0-9+\/]+)=* *$/i;
const LONGEST = 1024; // bytes of a name and a password; right ones have 137 at most
const ASK = 425; // an error_page that goes to the login service
const YEAR = 365 * 86400000;

/* What verdicts are bound to: an edited file makes all older ones unreachable, and so does a clock that was set back, by which they
 * would outlive their tokens. Every worker looks ten times a second (js_periodic, by a clock that nobody can set), because a look
 * costs as much as the rest of a request. Raises an error for a missing file. */
function look() {
    const now = Date.now();
    if (now + 1000 < Number(ngx.shared.users.get('now') || 0)) {
        ngx.shared.users.delete('secret');
    }
    ngx.shared.users.set('now', String(now), YEAR);
    const fresh = Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('hex');
    const secret = ngx.shared.users.add('secret', fresh, YEAR) ? fresh : ngx.shared.users.get('secret');
    const identity = USERS.map(function (path) {
        const file = fs.statSync(path);
        return [file.ino, file.mtimeMs, file.ctimeMs, file.size].join('.');
    });
    ngx.shared.users.set('seal', `${secret} ${identity.join(' ')}`);
}

function lookAgain() {
    try {
        look();
    } catch (error) {
        ngx.shared.users.delete('seal'); // whoever comes next is told
    }
}

/* The one spelling of a credential that verdicts are kept by; nothing for what is malformed, or longer than any right one. */
function canonical(header) {
    const found = header.match(BASIC);
    const credential = found && Buffer.from(found[1], 'base64');
    return credential && credential.length <= LONGEST ? `Basic ${credential.toString('base64')}` : undefined;
}

/* A memory that cannot keep it is no reason to refuse. Not for longer than these milliseconds, if a verdict comes with some. */
function remember(r, verdicts, verdict, milliseconds) {
    try {
        verdicts.set(r.variables.login_key, verdict, milliseconds);
    } catch (error) {
        r.warn(`login: a verdict is not kept: ${error.message}`);
    }
}

/* What a user may not: the status and the reason, or nothing. */
function objection(r, user) {
    const account = user.split(' ');
    const method = r.variables.request_method;
    r.variables.login_user = account[0];
    if (READS.includes(method)) {
        return '';
    }
    if (method != 'POST' || !UPLOADS.test(r.variables.wanted)) {
        return `405 Uploads go by POST to ${r.variables.address}/ and nowhere else.`;
    }
    const more = /\/[^:]+$/.test(account[0]) ? 'a token with the scope publish' : 'the role publisher';
    return account[1] == 'publisher' ? '' : `403 ${account[0]} may download but not upload: ask for ${more}.`;
}

/* The answers of auth_request can only be 2xx, 401 and 403; the last is turned into what $refusal says. */
function forbid(r, refusal) {
    r.variables.refusal = refusal;
    r.return(403);
}

/* Whether there is a verdict, and then the answer was given. */
function judged(r) {
    const user = ngx.shared.right.get(r.variables.login_key);
    if (user) {
        const refusal = objection(r, user);
        refusal ? forbid(r, refusal) : r.return(204);
    } else if (ngx.shared.wrong.has(r.variables.login_key)) {
        r.return(401);
    } else {
        return false;
    }
    return true;
}

function check(r) {
    const header = r.headersIn.Authorization;
    if (!header) {
        const open = r.variables.login_anonymous_read == '1' && READS.includes(r.variables.request_method);
        r.return(open ? 204 : 401);
        return;
    }
    const credential = canonical(header);
    try {
        if (!ngx.shared.users.has('seal')) {
            look();
        }
        r.variables.login_key = door.keyOf(credential || header);
    } catch (error) {
        r.error(`login: ${error.message}`);
        forbid(r, '503 The users of this index cannot be read.');
        return;
    }
    if (!judged(r)) {
        // What is malformed may not fit into a header again. The login service refuses its key instead, and takes its time.
        r.variables.login_credential = credential || r.variables.login_key;
        r.return(ASK);
    }
}

/* The verdict of the login service, before anybody else sees it (js_header_filter). */
function hear(r) {
    const refusal = r.headersOut['X-Login-Refusal']; // a token's; it is judged in no time, and every time with its reason
    if (refusal) {
        r.variables.refusal = `401 ${refusal}`;
        r.status = 403;
    } else if (r.status == 401) {
        remember(r, ngx.shared.wrong, 1);
    }
    if (r.status == 204) {
        const user = `${r.headersOut['X-Login-User']} ${r.headersOut['X-Login-Role']}`;
        remember(r, ngx.shared.right, user, Number(r.headersOut['X-Login-Remember']) || undefined);
        r.variables.refusal = objection(r, user);
        r.status = r.variables.refusal ? 403 : 204;
    }
}

/* The same credential is being verified for somebody else, whose verdict will be here; when that one has left, it is asked for. */
async function wait(r) {
    for (let look = 0; look < 30; look++) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        if (judged(r)) {
            return;
        }
    }
    r.variables.login_waits = Number(r.variables.login_waits) + 1;
    r.variables.login_waits < 4 ? r.return(ASK) : forbid(r, '429 Too many logins at once. Try again in a minute.');
}

export default {check, hear, look: lookAgain, wait};
