/* Whether a signature is right (RFC 7515, RFC 7518), for the login service: no other of our images has the cryptography for it.
 * It is told the key and what is signed, keeps nothing, and what its answer means is decided there. */
const ALGORITHMS = {
    RS256: {name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256'},
    ES256: {name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256'},
};

/* 204 for yes; 403 for no, and for what is no key or no signature. */
async function verify(r) {
    try {
        const asked = JSON.parse(r.requestText);
        const algorithm = ALGORITHMS[asked.algorithm];
        const key = await crypto.subtle.importKey('jwk', asked.key, algorithm, false, ['verify']);
        const signature = Buffer.from(asked.signature, 'base64url');
        const right = await crypto.subtle.verify(algorithm, key, signature, Buffer.from(asked.signed));
        r.return(right === true ? 204 : 403);
    } catch (error) {
        r.warn(`signature: ${error.message}`);
        r.return(403);
    }
}

export default {verify};
