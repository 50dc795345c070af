/* What auth_request could only call 403, and every refusal of an upload when the login service, which has them with their reason
 * in the status line, is down. */
function refuse(r) {
    r.headersOut['Content-Type'] = 'text/plain; charset=utf-8';
    const refusal = r.variables.printable_refusal;
    r.return(Number(refusal.slice(0, 3)), `${refusal.slice(4)}\n`);
}

export default {refuse};
