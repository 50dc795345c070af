/* What every read of a known user goes through, and nothing else: nginx copies and runs a whole module for each request.
 *
 * A verdict is kept in memory that the workers share. Its key is an HMAC of the credential; the HMAC's own key (`seal`) is a random
 * one that nobody sees and the identity of the users' files (login.js). See docs/decisions/0001-login-at-the-edge.md. */
import hashes from 'crypto';

/* Raises an error when there is no seal. */
function keyOf(credential) {
    return hashes.createHmac('sha256', ngx.shared.users.get('seal')).update(credential).digest('base64');
}

/* $door, a directory: `known` has the index in it, `unknown` does not exist, and nginx goes on to ask the login. */
function door(r) {
    const credential = r.headersIn.Authorization;
    if (!credential) {
        return r.variables.login_anonymous_read == '1' ? 'known' : 'unknown';
    }
    let user;
    try {
        user = ngx.shared.right.get(keyOf(credential));
    } catch (error) {
        return 'unknown';
    }
    if (!user) {
        return 'unknown';
    }
    r.variables.login_user = user.split(' ')[0];
    return 'known';
}

export default {door, keyOf};
