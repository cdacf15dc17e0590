// A real OpenID provider on loopback, for one desk: node provider.js '{"port": ..., "desk": "http://127.0.0.1:...", ...}'.
// Anyone who gives a name that it knows is let in, by its own forms; the name is the sub.
import Provider from "oidc-provider";

const { port, desk, people } = JSON.parse(process.argv[2]);
const provider = new Provider(`http://localhost:${port}`, {
  clients: [
    {
      client_id: "desk",
      client_secret: "a secret of the day",
      redirect_uris: [`${desk}/sign-in/callback`],
      post_logout_redirect_uris: [`${desk}/signed-out`],
    },
  ],
  pkce: { required: () => true },
  scopes: ["openid", "profile", "groups"],
  claims: { openid: ["sub"], profile: ["name"], groups: ["groups"] },
  findAccount: (_, sub) => people[sub] && { accountId: sub, claims: () => ({ sub, ...people[sub] }) },
  cookies: { keys: ["of this day"] },
  ttl: { Interaction: 3600, Session: 3600, Grant: 3600, AccessToken: 3600, IdToken: 3600 },
});
provider.listen(port, "127.0.0.1", () => console.log("ready"));
