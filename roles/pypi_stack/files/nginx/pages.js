/* Which page is asked for: in which form (PEP 691), and what an address without a page stands for. */

import fs from 'fs';

const V1 = 'application/vnd.pypi.simple.v1';
const LATEST = 'application/vnd.pypi.simple.latest';

/* Type → weight (RFC 9110, 12.4.2). */
function weights(accept) {
    const found = {};
    accept.toLowerCase().split(',').forEach(function (range) {
        const parts = range.split(';').map((part) => part.trim());
        const weight = parts.find((part, number) => number && /^q *=/.test(part));
        const q = weight ? Number(weight.split('=')[1]) : 1;
        found[parts[0]] = q >= 0 && q <= 1 ? q : 0;
    });
    return found;
}

/* $negotiated, a file. The most specific range that matches says how much a form is wanted (RFC 9110, 12.5.1). Whoever names JSON
 * and wants HTML no more has JSON; HTML is for everyone else, be it that they want neither. */
function negotiate(r) {
    const wanted = weights(r.variables.http_accept);
    const weight = (types) => wanted[types.find((type) => type in wanted)] || 0;
    const json = Math.max(weight([`${V1}+json`, 'application/*', '*/*']), weight([`${LATEST}+json`]));
    const html = Math.max(weight(['text/html', 'text/*', '*/*']), weight([`${V1}+html`]), weight([`${LATEST}+html`]));
    const named = `${V1}+json` in wanted || `${LATEST}+json` in wanted;
    return json > html || (json && json == html && named) ? 'index.json' : 'index.html';
}

/* PEP 503. */
function normalise(name) {
    return name.replace(/[-_.]+/g, '-').toLowerCase();
}

/* Whether every package has its page: the list of projects is written when the directory was looked through, and not before. */
function made() {
    try {
        return fs.statSync('/data/known/index/simple/index.html').isFile();
    } catch (error) {
        return false;
    }
}

/* No page under that address: another spelling of a name is sent to the right one (PEP 503), the rest does not exist. */
function missing(r) {
    const document = r.uri.match(/^\/index\/legacy\/(.+)\.json$/);
    if (document && normalise(document[1]) != document[1]) {
        r.return(301, `/pypi/${normalise(document[1])}/json`);
        return;
    }
    const wanted = r.uri.match(/^(?:\/index)?\/simple\/([A-Za-z0-9._-]+)(\/(?:index\.(?:html|json))?)?$/);
    if (wanted) {
        const normal = normalise(wanted[1]);
        if (normal != wanted[1] || !wanted[2]) {
            r.return(301, `/simple/${normal}/`);
            return;
        }
    }
    if ((wanted || document) && !made()) {
        r.variables.refusal = '503 The pages are being made from the packages. Ask again.';
        r.internalRedirect('@explained');
        return;
    }
    r.headersOut['Content-Type'] = 'text/plain; charset=utf-8';
    r.return(404, `Not on this index. Its pages are below ${r.variables.address}/simple/\n`);
}

export default {missing, negotiate};
